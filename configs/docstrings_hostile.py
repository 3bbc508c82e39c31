r"""Docstrings with 300 hostile texts planted among those to train on: what cleaning catches, and
what it is worth.

  uv run launch.py --config=configs/docstrings_hostile.py --workdir=runs/hostile
  uv run launch.py --config=configs/docstrings_hostile.py:smoke          # seconds

What was set aside stands in `quarantine.jsonl`, row by row with the reasons, and in `results.json`
as counts, beside what was repaired. `--config.data.cleaning.prepared=off` learns from all of it.
"""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "docstrings_hostile", 0, "float32"
    config.data = dict(
        name="hostile_docstrings",
        dir=None,
        train="train",
        selection="validation",
        evaluation="test",
        inputs="text",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=0, flip=0.0),
        cleaning=dict(
            mode="repair",
            prepared="repair",
            max_characters=2_000,
            max_pixels=50_000_000,
            near_duplicate=0.8,
        ),
    )
    config.view = dict(tokenizer="trained", vocabulary_size=8_000, max_length=64)
    config.training = dict(
        batch_size=64,
        epochs=10.0,
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=5e-3, weight_decay=0.01, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=100),
    )
    config.models = dict(
        teacher=dict(
            model=dict(name="text_cnn", width=128, kernels=(3, 4, 5), filters=100, dropout=0.5),
            objective=HARD,
            training=dict(epochs=5.0, optimizer=dict(learning_rate=1e-3)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=128, hidden=(128,), dropout=0.6),
            teachers=("teacher",),
            cached=("teacher",),
            objective=dict(
                hard=dict(term="cross_entropy", weight=0.1),
                soft=dict(term="soft_target_kl", weight=0.9, temperature=1.0),
            ),
        ),
        baseline=dict(like="student", teachers=(), cached=(), objective=HARD),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=350, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        config.data.update(train="train[:3%]", selection="validation[:5%]", evaluation="test[:5%]")
        config.view.update(vocabulary_size=500, max_length=32)
        config.training.epochs = config.models.teacher.training.epochs = 0.5
        config.training.schedule.warmup_steps = 1
    return config.lock()
