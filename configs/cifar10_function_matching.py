r"""The published CIFAR-10 ResNet-56 distilled into a ResNet-8 by function matching, beside the same
without mixing.

  uv run launch.py --config=configs/cifar10_function_matching.py --workdir=runs/matching \
      --config.models.teacher.model.pretrained=resnet56-4bfd9763.npz
  uv run launch.py --config=configs/cifar10_function_matching.py:quick ...
  uv run launch.py --config=configs/cifar10_function_matching.py:smoke

Teacher and student see the same crop and the same mix, the soft targets are the whole objective,
and the schedule is long, after Beyer et al. (https://arxiv.org/abs/2106.05237). The baseline learns
from the mixed labels; `unmixed` is the student without mixing, `unmixed_baseline` the baseline
without it, all for as many steps. """

from kd_jax.config import experiment, soft_targets


def get_config(variant=""):
    if variant not in ("", "quick"):
        raise ValueError(f"unknown variant {variant!r}; there are 'quick' and 'smoke'")
    quick = variant == "quick"
    unmixed = dict(mixing=None)
    return experiment(
        "cifar10_function_matching",
        data=dict(
            name="cifar10",
            train="train[:19%]" if quick else "train[:95%]",
            selection="train[99%:]" if quick else "train[95%:]",
            augmentation=dict(crop=4, flip=0.5),
        ),
        training=dict(
            epochs=10.0 if quick else 600.0,
            optimizer=dict(learning_rate=3e-3, weight_decay=1e-4),
            schedule=dict(warmup_steps=50 if quick else 500),
            mixing=dict(kind="mixup", probability=1.0, share=1.0, concentration=1.0, candidates=1),
        ),
        teacher=dict(model=dict(pretrained="resnet56-4bfd9763.npz")),
        student=dict(
            model=dict(name="cifar_resnet", depth=8, stem=16, widths=(16, 32, 64), shortcut="pad"),
            objective=soft_targets(temperature=1.0, hard=0),
        ),
        models=dict(
            unmixed=dict(like="student", training=unmixed),
            unmixed_baseline=dict(like="baseline", training=unmixed),
        ),
        checkpoint=dict(every_steps=300 if quick else 1000),
    )
