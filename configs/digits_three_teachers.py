r"""Three teachers of different architectures and image sizes, one by one and as an ensemble, on
digits.

uv run launch.py --config=configs/digits_three_teachers.py --workdir=runs/three
uv run launch.py --config=configs/digits_three_teachers.py:smoke        # seconds

The student learns from the ensemble, `of_vgg`, `of_resnet` and `of_vit` from one of its members
each, the baseline from the labels. Ensemble and members are evaluated like any model."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}
MEMBERS = ("vgg", "resnet", "vit")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "digits_three_teachers", 0, "float32"
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
    as_teacher = dict(epochs=60.0, optimizer=dict(learning_rate=4e-3, weight_decay=1e-2))
    config.models = dict(
        vgg=dict(
            model=dict(name="vgg", depth=11, width=0.25, batch_norm=True, head=(), dropout=0.5),
            objective=HARD,
            training=as_teacher,
        ),
        resnet=dict(
            model=dict(
                name="cifar_resnet", depth=8, stem=8, widths=(8, 16, 32), shortcut="projection"
            ),
            view=dict(size=(16, 16), channels=1, mean=(0.3,), std=(0.37,)),
            objective=HARD,
            training=as_teacher,
        ),
        vit=dict(
            model=dict(
                name="vit",
                image_size=8,
                patch=2,
                width=32,
                layers=2,
                heads=4,
                intermediate=64,
                dropout=0.1,
                distillation=False,
            ),
            objective=HARD,
            training=as_teacher,
        ),
        ensemble=dict(
            model=dict(
                name="ensemble",
                members=MEMBERS,
                combine="mean_probabilities",
                weights=None,
                temperatures=None,
            )
        ),
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("ensemble",),
            objective=dict(soft=dict(term="soft_target_kl", weight=1.0, temperature=4.0)),
        ),
        baseline=dict(like="student", teachers=(), objective=HARD),
    )
    for member in MEMBERS:
        config.models[f"of_{member}"] = dict(like="student", teachers=(member,))
    config.compare = dict(student="student", baseline="baseline", teacher="ensemble")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=100, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        config.training.epochs = 0.25
        for member in MEMBERS:
            config.models[member].training.epochs = 0.25
        config.training.schedule.warmup_steps = 1
    return config.lock()
