r"""How often a 95 % interval of a gain holds the truth, on simulated models.

  uv run benchmarks/intervals.py [--trials=1000]

For each metric two models are drawn whose outputs are noisy views of the same rows, one less noisy
than the other. The truth is their difference on 400,000 rows; each trial compares them on as many
rows as a test set has. Over seeds, differences are normal. Bound: 93 to 97 %."""

import argparse
from math import sqrt

import numpy as np
from rich.console import Console
from rich.table import Table

from kd_jax.analysis.intervals import bootstrap, over_seeds
from kd_jax.tasks import Rows, Task, make_task

MANY = 400_000
NOISES = (1.0, 1.1)


def draw(task: Task, rng: np.random.Generator, count: int) -> tuple[Rows, Rows]:
    """Draws labels and the outputs of two models, which err on the same rows mostly."""
    classes = 3 if task.name == "classification" else 4
    truth = rng.normal(size=(count, 1 if task.name == "regression" else classes))
    common = rng.normal(size=truth.shape)
    found = []
    for noise in NOISES:
        own = rng.normal(size=truth.shape)
        outputs = truth + noise * (common + 0.5 * own)
        labels = {
            "classification": lambda: truth.argmax(axis=-1),
            "multilabel": lambda: (truth > 0.5).astype(np.float64),
            "regression": lambda: truth,
        }[task.name]()
        found.append(Rows(outputs, labels, np.arange(count)))
    return found[0], found[1]


def difference(task: Task, one: Rows, other: Rows) -> float:
    """Returns the difference of the primary metrics on all rows."""
    values = []
    for rows in (one, other):
        sample = task.sample(rows)
        assert sample is not None
        value = sample.value(np.arange(sample.size))
        assert value is not None
        values.append(value)
    return values[0] - values[1]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    table = Table(title=f"intervals that hold the truth, of {trials}, \u00b1 two standard errors")
    for column in ("metric", "rows or seeds", "truth", "held %"):
        table.add_column(column, justify="right")
    cases = [
        ("classification", "accuracy"),
        ("classification", "macro_f1"),
        ("classification", "mcc"),
        ("multilabel", "micro_f1"),
        ("regression", "spearman"),
        ("regression", "rmse"),
    ]
    for name, metric in cases:
        task = make_task(name, metric)
        truth = difference(task, *draw(task, np.random.default_rng(10**6), MANY))
        for count in (200, 800):
            held = 0
            for trial in range(trials):
                one, other = (
                    task.sample(rows) for rows in draw(task, np.random.default_rng(trial), count)
                )
                assert one is not None
                assert other is not None
                found = bootstrap(one, other, seed=trial, draws=500)
                held += found is not None and found.low <= truth <= found.high
            add(table, metric, count, truth, held, trials)
    for seeds in (3, 5):
        rng, held = np.random.default_rng(0), 0
        for _ in range(10 * trials):
            found = over_seeds(rng.normal(0.5, 1, seeds).tolist())
            held += found is not None and found.low <= 0.5 <= found.high
        add(table, "over seeds", seeds, 0.5, held, 10 * trials)
    Console(width=100).print(table)


def add(table: Table, name: str, count: int, truth: float, held: int, trials: int) -> None:
    """Adds a row."""
    share = held / trials
    error = 2 * sqrt(share * (1 - share) / trials)
    table.add_row(name, f"{count}", f"{truth:+.4f}", f"{100 * share:.1f} \u00b1 {100 * error:.1f}")


if __name__ == "__main__":
    main()
