r"""VGG16 on MNIST, distilled into a small CNN, through soft targets and a hint
(https://arxiv.org/abs/1412.6550).

  uv run launch.py --config=configs/mnist_vgg16.py --workdir=runs/mnist
  uv run launch.py --config=configs/mnist_vgg16.py:smoke                  # seconds, on digits

The dataset is TFDS's `mnist`; set TFDS_DATA_DIR or --config.data.dir where it is prepared already.
"""

from ml_collections import ConfigDict

HARD = dict(hard=dict(term="cross_entropy", weight=1.0))


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "mnist_vgg16", 0, "float32"
    config.data = dict(
        name="mnist",
        dir=None,
        train="train[:95%]",
        selection="train[95%:]",
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
    config.view = dict(size=None, channels=1, mean=(0.1307,), std=(0.3081,))
    config.training = dict(
        batch_size=128,
        epochs=5.0,
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=2e-3, weight_decay=1e-2, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=100),
    )
    config.models = dict(
        teacher=dict(
            model=dict(name="vgg", depth=16, width=0.25, batch_norm=True, head=(128,), dropout=0.3),
            objective=HARD,
            training=dict(epochs=3.0),
        ),
        student=dict(
            model=dict(name="cnn", widths=(8, 16), batch_norm=True),
            teachers=("teacher",),
            objective=dict(
                hard=dict(term="cross_entropy", weight=0.1),
                soft=dict(term="soft_target_kl", weight=0.9, temperature=4.0),
                # The hint fades out, so that the student is free of it in the end.
                hint=dict(
                    term="hidden_mse",
                    student="pooled",
                    teacher="pooled",
                    mapping="linear",
                    weight=dict(name="linear", start=1.0, stop=0.0, steps=1000),
                ),
            ),
        ),
        baseline=dict(like="student", teachers=(), objective=HARD),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=200, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        config.data.update(name="digits", train="train[:20%]", selection="train[80%:]")
        config.models.teacher.model.update(width=0.0625, head=(16,))
        config.training.batch_size = 32
        config.training.epochs = config.models.teacher.training.epochs = 0.5
        config.training.schedule.warmup_steps = 1
    return config.lock()
