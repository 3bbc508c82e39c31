r"""Hinton distillation of a narrow CNN from a VGG on 1,797 digits of 8x8 pixels
(https://arxiv.org/abs/1503.02531).

uv run launch.py --config=configs/digits.py --workdir=runs/digits
uv run launch.py --config=configs/digits.py:smoke                       # seconds
"""

from kd_jax.config import experiment, soft_targets


def get_config():
    return experiment(
        "digits",
        data="digits",
        training=dict(
            epochs=100.0,
            optimizer=dict(learning_rate=2e-2, weight_decay=0.1),
            schedule=dict(warmup_steps=50),
        ),
        teacher=dict(
            model=dict(name="vgg", depth=11, width=0.25, batch_norm=True, head=(), dropout=0.5),
            training=dict(epochs=60.0, optimizer=dict(learning_rate=4e-3, weight_decay=1e-2)),
        ),
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            # Soft targets alone: the trials with a share of the hard labels were no better.
            objective=soft_targets(temperature=4.0, hard=0),
        ),
    )
