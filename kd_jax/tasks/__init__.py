"""Tasks: what a model predicts, how its labels are read, and by which metrics it is judged.

Everything that depends on the task is asked of it, and nothing else in the package asks which one
it is. A new task is one file here and one line in `TASKS`."""

from collections.abc import Mapping
from typing import Any

from kd_jax.core.options import call_with_options, choose
from kd_jax.tasks.classification import CLASSIFICATION, Classification
from kd_jax.tasks.embedding import Embedding
from kd_jax.tasks.masked_language_model import MaskedLanguageModel
from kd_jax.tasks.multilabel import MultiLabel
from kd_jax.tasks.regression import Regression
from kd_jax.tasks.tagging import Tagging
from kd_jax.tasks.task import METRICS, Metric, Rows, Task, cell, header, shown

__all__ = [
    "CLASSIFICATION",
    "METRICS",
    "TASKS",
    "Classification",
    "Embedding",
    "MaskedLanguageModel",
    "Metric",
    "MultiLabel",
    "Regression",
    "Rows",
    "Tagging",
    "Task",
    "cell",
    "header",
    "make_task",
    "read_task",
    "register_task",
    "shown",
]

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "embedding": Embedding,
    "masked_language_model": MaskedLanguageModel,
    "multilabel": MultiLabel,
    "regression": Regression,
    "tagging": Tagging,
}
"""Name in a config -> task."""


def read_task(described: Mapping[str, Any]) -> Task:
    """Returns the task that `Task.describe` described.

    Raises:
      ValueError: for an unknown task, such as one of your own that isn't registered here.
    """
    build = choose(TASKS, described, "task")
    # JSON has lists where tasks have tuples.
    facts: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in described.items() if k != "name"
    }
    return build(**facts)


def register_task(name: str, task: type[Task]) -> None:
    """Makes a task of your own known under a name.

    Raises:
      ValueError: if the name is taken by another one.
    """
    if TASKS.get(name, task) is not task:
        raise ValueError(f"there is a task {name!r} already")
    TASKS[name] = task


def make_task(section: str | Mapping[str, Any], primary: str | None = None) -> Task:
    """Makes a task from its name, or `dict(name=..., **options)`.

    Args:
      section: as `task` in a config.
      primary: the metric by which models are chosen and compared; None: the task's first.

    Raises:
      ValueError: for an unknown task, option or metric; names what exists.
    """
    options = {"name": section} if isinstance(section, str) else dict(section)
    task = call_with_options(choose(TASKS, options, "task"), options, "task")
    if primary is not None and primary not in task.metrics:
        raise ValueError(
            f"primary: task {options['name']!r} has no metric {primary!r}; it has"
            f" {', '.join(task.metrics)}"
        )
    return task.ranked_by(primary)
