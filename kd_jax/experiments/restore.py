"""Takes a finished model over from another run, if it is what a config describes."""

from pathlib import Path

import jax

from kd_jax.config.schema import ModelPlan
from kd_jax.core.json_files import as_json
from kd_jax.core.pytree import leaves_by_path, not_finite
from kd_jax.experiments.build import example
from kd_jax.experiments.check_inputs import check_inputs
from kd_jax.models.network import Network
from kd_jax.tasks import CLASSIFICATION
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import Contents, load_required


def read_restored(plan: ModelPlan, network: Network, context: RunContext) -> Contents:
    """Reads the finished model that a section's `restore` names.

    Args:
      plan: the section.
      network: of the section, for the shapes.
      context: of the run.

    Raises:
      ValueError: if there is none, or it is damaged, of another section, view, tokenizer, task,
        classes or shapes.
    """
    folder, owner = Path(str(plan.restore)), f"models.{plan.name}"
    try:
        done = load_required(folder)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
    # Weights that fit by chance would give wrong results in silence.
    ours = {
        "spec": as_json(plan.model),
        "view": as_json(plan.view),
        "class_names": list(context.datasets.class_names),
    }
    for key, wanted in ours.items():
        if (found := done.description.get(key)) != wanted:
            raise ValueError(f"{owner}: {folder} has {key} {found}, the config {wanted}")
    # Models of before there were tasks are all classifiers.
    theirs = done.description.get("task", CLASSIFICATION.describe())
    if problem := context.datasets.task.contradicts(theirs):
        raise ValueError(f"{owner}: {folder} {problem}")
    check_inputs(plan, folder, context)
    # Equal sections can still give other shapes, with another vocabulary for example.
    expected = jax.eval_shape(network.init, jax.random.key(0), example(plan, context))
    left, right = (
        {path: leaf.shape for path, leaf in leaves_by_path(tree).items()}
        for tree in (done.variables, expected)
    )
    for path in sorted(left.keys() | right.keys()):
        if left.get(path) != right.get(path):
            raise ValueError(
                f"{owner}: {folder} has shape {left.get(path, 'none')} at {path}, not"
                f" {right.get(path, 'none')}"
            )
    if leaves := not_finite(done.variables):
        raise ValueError(
            f"{owner}: the weights in {folder} hold numbers that aren't finite, first in"
            f" {leaves[0]}"
        )
    return done
