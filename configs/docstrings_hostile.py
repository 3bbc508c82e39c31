r"""Docstrings with 300 hostile texts planted among those to train on: what cleaning catches, and
what it is worth.

  uv run launch.py --config=configs/docstrings_hostile.py --workdir=runs/hostile
  uv run launch.py --config=configs/docstrings_hostile.py:smoke          # seconds

What was set aside stands in `quarantine.jsonl`, row by row with the reasons, and in `results.json`
as counts, beside what was repaired. `--config.data.cleaning.prepared=off` learns from all of it.
"""

from kd_jax.config import experiment, soft_targets


def get_config():
    return experiment(
        "docstrings_hostile",
        data=dict(
            name="hostile_docstrings",
            cleaning=dict(prepared="repair", max_characters=2_000),
        ),
        training=dict(optimizer=dict(learning_rate=5e-3)),
        teacher=dict(
            model=dict(name="text_cnn", width=128, kernels=(3, 4, 5), filters=100, dropout=0.5),
            training=dict(epochs=5.0, optimizer=dict(learning_rate=1e-3)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=128, hidden=(128,), dropout=0.6),
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=soft_targets(temperature=1.0),
        ),
        checkpoint=dict(every_steps=350),
    )
