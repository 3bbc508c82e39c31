r"""A CNN distilled from a VGG on 1,797 digits of 8x8 pixels, and how both fare on MNIST and on
corrupted digits.

  uv run launch.py --config=configs/digits_mnist.py --workdir=runs/digits_mnist
  uv run launch.py --config=configs/digits_mnist.py:smoke                 # seconds, built-in digits alone

The models are those of configs/digits.py. MNIST, from other writers and another scanner, is TFDS's
`mnist`, shrunk to 8x8 pixels; set --config.evaluations.mnist.dir where it is prepared already."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "digits_mnist", 0, "float32"
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
        batch_size=64,  # Global; a multiple of accumulate x devices.
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
        # total loss = sum of weight * mean(term); each term is logged by its name.
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("teacher",),
            # Soft targets alone: the trials with a share of the hard labels were no better.
            objective=dict(soft=dict(term="soft_target_kl", weight=1.0, temperature=4.0)),
        ),
        baseline=dict(like="student", teachers=(), objective=HARD),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    corrupted = dict(kind=("gaussian_noise", "blur", "contrast"), severity=(1, 3, 5))
    # Each takes over from `data` what it doesn't say. Both have the classes "0" to "9", so neither
    # needs a label_map.
    config.evaluations = dict(
        mnist=dict(name="mnist", dir=None),
        digits=dict(corruption=corrupted),  # digits_gaussian_noise_1, digits_gaussian_noise_3, ...
    )
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=100, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        del config.evaluations.mnist
        # Half of the classes, to show a map at work.
        config.evaluations.low = dict(
            label_map={str(digit): str(digit) if digit < 5 else None for digit in range(10)}
        )
        config.evaluations.digits.corruption.severity = (5,)
        config.training.epochs = config.models.teacher.training.epochs = 0.25
        config.training.schedule.warmup_steps = 1
    return config.lock()
