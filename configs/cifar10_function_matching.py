r"""The published CIFAR-10 ResNet-56 distilled into a ResNet-8 by function matching, beside the same
without mixing.

  uv run launch.py --config=configs/cifar10_function_matching.py --workdir=runs/matching \
      --config.models.teacher.model.pretrained=resnet56-4bfd9763.npz
  uv run launch.py --config=configs/cifar10_function_matching.py:quick ...     # a fifth of the data, 10 epochs
  uv run launch.py --config=configs/cifar10_function_matching.py:smoke         # seconds, on digits, another teacher

Teacher and student see the same crop and the same mix, the soft targets are the whole objective,
and the schedule is long, after Beyer et al. (https://arxiv.org/abs/2106.05237). The baseline learns
from the mixed labels; `unmixed` is the student without mixing, `unmixed_baseline` the baseline
without it, all for as many steps. """

from ml_collections import ConfigDict

HARD = dict(hard=dict(term="cross_entropy", weight=1.0))
MATCHING = dict(soft=dict(term="soft_target_kl", weight=1.0, temperature=1.0))


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "quick", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '', 'quick' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "cifar10_function_matching", 0, "float32"
    config.data = dict(
        name="cifar10",
        dir=None,
        train="train[:95%]",
        selection="train[95%:]",
        evaluation="test",
        inputs="image",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=4, flip=0.5),
        cleaning=dict(
            mode="repair",
            prepared="report",
            max_characters=20_000,
            max_pixels=50_000_000,
            near_duplicate=0.8,
        ),
    )
    config.view = dict(size=None, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    config.training = dict(
        batch_size=64,
        epochs=600.0,
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=3e-3, weight_decay=1e-4, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=500),
        mixing=dict(kind="mixup", probability=1.0, share=1.0, concentration=1.0, candidates=1),
    )
    unmixed = dict(mixing=None)
    config.models = dict(
        teacher=dict(model=dict(pretrained="resnet56-4bfd9763.npz")),
        student=dict(
            model=dict(name="cifar_resnet", depth=8, stem=16, widths=(16, 32, 64), shortcut="pad"),
            teachers=("teacher",),
            objective=MATCHING,
        ),
        baseline=dict(like="student", teachers=(), objective=HARD),
        unmixed=dict(like="student", training=unmixed),
        unmixed_baseline=dict(like="baseline", training=unmixed),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=1000, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "quick":
        config.data.update(train="train[:19%]", selection="train[99%:]")
        config.training.epochs = 10.0
        config.training.schedule.warmup_steps = 50
        config.checkpoint.every_steps = 300
    if variant == "smoke":
        _smoke(config)
    return config.lock()


def _smoke(config: ConfigDict) -> None:
    """Digits in three channels, a small teacher that is trained for a few steps."""
    config.data.update(
        name="digits",
        train="train[:20%]",
        selection="train[80%:]",
        augmentation=dict(crop=1, flip=0.0),
    )
    config.training.update(batch_size=32, epochs=0.5)
    config.training.schedule.warmup_steps = 1
    small = dict(name="cifar_resnet", depth=8, stem=4, widths=(4, 8, 8), shortcut="pad")
    config.models.teacher = dict(
        model=small | dict(depth=14), objective=HARD, training=dict(mixing=None)
    )
    config.models.student.model = small
