r"""A BERT-base teacher of the user's own, Adam at 1e-4, cross-entropy plus KL; test accuracy in
percent.

  uv run launch.py --config=configs/bert_adam.py --workdir=runs/bert
  --config.models.teacher.model.pretrained=FOLDER \
      --config.view.tokenizer=FOLDER
  uv run launch.py --config=configs/bert_adam.py:smoke                    # seconds, tiny random teacher

FOLDER is a Hugging Face folder of BERT-base: config.json, model.safetensors, tokenizer.json. The
accuracy that is printed is the one on `data.evaluation`; SST-2's public test labels are hidden, so
its validation split stands in. """

from ml_collections import ConfigDict

HARD = dict(hard=dict(term="cross_entropy", weight=1.0))


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "bert_adam", 0, "float32"
    config.data = dict(
        name="glue/sst2",
        dir=None,
        train="train[:95%]",
        selection="train[95%:]",
        evaluation="validation",
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
    config.view = dict(tokenizer="path/to/bert-base", max_length=64)
    config.training = dict(
        batch_size=32,
        epochs=3.0,
        accumulate=1,
        optimizer=dict(name="adam", learning_rate=1e-4, clip_norm=1.0),
        schedule=dict(name="constant", warmup_steps=0),
    )
    config.models = dict(
        teacher=dict(model=dict(pretrained="path/to/bert-base"), objective=HARD),
        student=dict(
            model=dict(
                name="encoder",
                width=128,
                layers=2,
                heads=2,
                intermediate=512,
                max_positions=512,
                type_vocabulary=2,
                dropout=0.1,
                pooling="cls",
            ),
            teachers=("teacher",),
            objective=dict(
                hard=dict(term="cross_entropy", weight=0.5),
                soft=dict(term="soft_target_kl", weight=0.5, temperature=2.0),
            ),
        ),
        baseline=dict(like="student", teachers=(), objective=HARD),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=500, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        smoke(config)
    return config.lock()


def smoke(config: ConfigDict) -> None:
    """Built-in sentences, a tokenizer made from them, tiny models with random weights, a few
    steps."""
    config.data.update(
        name="docstrings",
        inputs="text",
        label="label",
        train="train[:2%]",
        selection="test[:5%]",
        evaluation="validation[:5%]",
    )
    config.view = dict(tokenizer="trained", vocabulary_size=500, max_length=32)
    tiny = dict(
        name="encoder",
        layers=1,
        heads=2,
        intermediate=32,
        max_positions=64,
        type_vocabulary=2,
        dropout=0.1,
        pooling="cls",
    )
    config.models.teacher.model = tiny | dict(width=16)
    config.models.student.model = tiny | dict(width=8)
    config.training.epochs = 0.5
