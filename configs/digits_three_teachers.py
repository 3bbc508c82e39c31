r"""Three teachers of different architectures and image sizes, one by one and as an ensemble, on
digits.

uv run launch.py --config=configs/digits_three_teachers.py --workdir=runs/three
uv run launch.py --config=configs/digits_three_teachers.py:smoke        # seconds

The student learns from the ensemble, `of_vgg`, `of_resnet` and `of_vit` from one of its members
each, the baseline from the labels. Ensemble and members are evaluated like any model."""

from kd_jax.config import HARD, experiment, soft_targets

MEMBERS = ("vgg", "resnet", "vit")
AS_TEACHER = dict(
    objective=HARD,
    training=dict(epochs=60.0, optimizer=dict(learning_rate=4e-3, weight_decay=1e-2)),
)
VGG = dict(name="vgg", depth=11, width=0.25, batch_norm=True, head=(), dropout=0.5)
RESNET = dict(name="cifar_resnet", depth=8, stem=8, widths=(8, 16, 32), shortcut="projection")
VIT = dict(name="vit", image_size=8, patch=2, width=32, layers=2, heads=4, intermediate=64)
ENSEMBLE = dict(name="ensemble", members=MEMBERS, combine="mean_probabilities")


def get_config():
    return experiment(
        "digits_three_teachers",
        start="digits",
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("ensemble",),
            objective=soft_targets(temperature=4.0, hard=0),
        ),
        models=dict(
            vgg=dict(model=VGG, **AS_TEACHER),
            resnet=dict(
                model=RESNET,
                view=dict(size=(16, 16), channels=1, mean=(0.3,), std=(0.37,)),
                **AS_TEACHER,
            ),
            vit=dict(model=dict(**VIT, dropout=0.1, distillation=False), **AS_TEACHER),
            ensemble=dict(model=dict(**ENSEMBLE, weights=None, temperatures=None)),
            **{f"of_{member}": dict(like="student", teachers=(member,)) for member in MEMBERS},
        ),
        compare=dict(teacher="ensemble"),
    )
