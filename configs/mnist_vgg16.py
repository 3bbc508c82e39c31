r"""VGG16 on MNIST, distilled into a small CNN, through soft targets and a hint
(https://arxiv.org/abs/1412.6550).

  uv run launch.py --config=configs/mnist_vgg16.py --workdir=runs/mnist
  uv run launch.py --config=configs/mnist_vgg16.py:smoke                  # seconds, on digits

The dataset is TFDS's `mnist`; set TFDS_DATA_DIR or --config.data.dir where it is prepared already.
"""

from kd_jax.config import experiment


def get_config():
    return experiment(
        "mnist_vgg16",
        data="mnist",
        training=dict(batch_size=128, epochs=5.0, optimizer=dict(learning_rate=2e-3)),
        teacher=dict(
            model=dict(name="vgg", depth=16, width=0.25, batch_norm=True, head=(128,), dropout=0.3),
            training=dict(epochs=3.0),
        ),
        student=dict(
            model=dict(name="cnn", widths=(8, 16), batch_norm=True),
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
        checkpoint=dict(every_steps=200),
    )
