r"""A student that reads its teacher's logits beside each digit, every second time in training, and
also works alone.

uv run launch.py --config=configs/digits_conditioned.py --workdir=runs/conditioned
uv run launch.py --config=configs/digits_conditioned.py:smoke           # seconds

`student` is evaluated alone, as any model, and with the logits (`with_teacher` in results.json);
`unconditioned` is the same student, distilled without them."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}
SOFT = {"soft": {"term": "soft_target_kl", "weight": 1.0, "temperature": 4.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "digits_conditioned", 0, "float32"
    config.data = dict(
        name="digits",
        dir=None,
        train="train[:75%]",
        selection="train[75%:]",
        evaluation="test",
        inputs="image",
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
    config.view = dict(size=None, channels=1, mean=(0.3,), std=(0.37,))
    config.training = dict(
        batch_size=64,
        epochs=100.0,
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=2e-2, weight_decay=0.1, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=50),
    )
    config.models = dict(
        teacher=dict(
            model=dict(name="vgg", depth=11, width=0.25, batch_norm=True, head=(), dropout=0.5),
            objective=HARD,
            training=dict(epochs=60.0, optimizer=dict(learning_rate=4e-3, weight_decay=1e-2)),
        ),
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("teacher",),
            condition=dict(on="teacher", output="logits", map="linear", drop=0.5),
            objective=SOFT,
        ),
        unconditioned=dict(like="student", condition=None),
        baseline=dict(like="student", teachers=(), condition=None, objective=HARD),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=100, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        config.training.epochs = config.models.teacher.training.epochs = 0.25
        config.training.schedule.warmup_steps = 1
    return config.lock()
