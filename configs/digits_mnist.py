r"""A CNN distilled from a VGG on 1,797 digits of 8x8 pixels, and how both fare on MNIST and on
corrupted digits.

  uv run launch.py --config=configs/digits_mnist.py --workdir=runs/digits_mnist
  uv run launch.py --config=configs/digits_mnist.py:smoke

The models are those of configs/digits.py. MNIST, from other writers and another scanner, is TFDS's
`mnist`, shrunk to 8x8 pixels; set --config.evaluations.mnist.dir where it is prepared already."""

from kd_jax.config import experiment, soft_targets


def get_config():
    return experiment(
        "digits_mnist",
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
            objective=soft_targets(temperature=4.0, hard=0),
        ),
        # Each takes over from `data` what it doesn't say. Both have the classes "0" to "9".
        evaluations=dict(
            mnist=dict(name="mnist", dir=None),
            digits=dict(
                corruption=dict(kind=("gaussian_noise", "blur", "contrast"), severity=(1, 3, 5))
            ),
        ),
    )
