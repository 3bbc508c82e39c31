"""Opens the teachers of a run that are only files, before anything is trained."""

from kd_jax.config.schema import ModelPlan, Plan
from kd_jax.experiments.scoring import covers, judge, score
from kd_jax.teachers import stored
from kd_jax.teachers.frozen import outputs_on
from kd_jax.teachers.outputs import StoredTeacher, view_of
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel


def open_stored(plan: Plan, context: RunContext) -> dict[str, TrainedModel]:
    """Reads all stored outputs of a run's config.

    Returns:
      The models whose `model` names a file of outputs, by name; each has outputs on all rows of the
      training split.

    Raises:
      ValueError: for a file that can't be read or doesn't fit the data, or outputs that are worse
        than a guess.
    """
    wanted = [model for model in plan.models if model.outputs is not None]
    if wanted:
        stored.check_ids(context.datasets)
    return {model.name: _open(model, plan, context) for model in wanted}


def _open(model: ModelPlan, plan: Plan, context: RunContext) -> TrainedModel:
    datasets = context.datasets
    try:
        table = stored.open_table(model.model, datasets, plan.config["data"].get("id"))
    except ValueError as error:
        raise ValueError(f"models.{model.name}: {error}") from None
    description = {
        "fingerprint": table.outputs.fingerprint,
        "step": 0,
        "train_seconds": 0.0,
        "parameters": None,
    }
    # Of words, a batch's view says where they are.
    views = (model.view,) if datasets.task.words else ()
    home = context.workdir / model.name
    network = StoredTeacher(view_of(model.name))
    found = TrainedModel(model, network, None, description, home, views, stored=table)
    outputs_on(found, datasets.splits["train"])
    # What doesn't fit the other splits as a whole is refused, too; here and not after the training.
    try:
        known = {role: covers(found, datasets.splits[role]) for role in ("selection", "evaluation")}
    except ValueError as error:
        raise ValueError(f"models.{model.name}: {error}") from None
    if datasets.task.meets_teachers and not all(known.values()):
        role = next(role for role, each in known.items() if not each)
        raise ValueError(
            f"models.{model.name}: it has outputs for no row of {datasets.splits[role].name!r},"
            f" and task {datasets.task.name!r} compares models with their teachers there"
        )
    if not known["selection"]:
        return found
    metrics = score(found, {}, datasets.splits["selection"], context, context.parallel.devices * 64)
    names = ("loss", *datasets.task.metrics)
    description |= judge(model, {name: metrics[name] for name in names}, context)
    return found
