r"""Your own pictures, of any sizes: a ResNet-18 trained on ImageNet and fine-tuned on them,
distilled into a ResNet of a sixteenth of its parameters.

  uv run launch.py --config=own_images:pictures
  uv run launch.py --config=own_images:pictures --config.models.teacher.model.pretrained=FOLDER

The folder holds one folder of pictures a class. The teacher is fetched from the Hugging Face hub
once; with a FOLDER or file of your own nothing is fetched. Every picture is resized to
`view.size`."""

from kd_jax.config import HARD, experiment, soft_targets

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def get_config(folder="your_pictures"):
    return experiment(
        "own_images",
        data=dict(name=folder),
        view=dict(size=96, channels=3, **IMAGENET),
        training=dict(
            epochs=20.0,
            optimizer=dict(learning_rate=2e-3),
            schedule=dict(name="cosine", warmup_steps=20),
        ),
        teacher=dict(
            model=dict(pretrained="hub:microsoft/resnet-18"),
            objective=HARD,
            training=dict(epochs=5.0, optimizer=dict(learning_rate=2e-4)),
        ),
        student=dict(
            model=dict(
                name="resnet",
                stem=16,
                blocks=(2, 2, 2, 2),
                widths=(16, 32, 64, 128),
                bottleneck=False,
            ),
            objective=soft_targets(temperature=4.0),
        ),
    )
