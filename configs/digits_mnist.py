r"""A CNN distilled from a VGG on 1,797 digits of 8x8 pixels, and how both fare on MNIST and on
corrupted digits.

  uv run launch.py --config=configs/digits_mnist.py --workdir=runs/digits_mnist
  uv run launch.py --config=configs/digits_mnist.py:smoke

The models are those of configs/digits.py. MNIST, from other writers and another scanner, is TFDS's
`mnist`, shrunk to 8x8 pixels; set --config.evaluations.mnist.dir where it is prepared already."""

from kd_jax.config import experiment


def get_config():
    return experiment(
        "digits_mnist",
        start="digits",
        # Each takes over from `data` what it doesn't say. Both have the classes "0" to "9".
        evaluations=dict(
            mnist=dict(name="mnist", dir=None),
            digits=dict(
                corruption=dict(kind=("gaussian_noise", "blur", "contrast"), severity=(1, 3, 5))
            ),
        ),
    )
