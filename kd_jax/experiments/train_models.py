"""Models of a plan, from their sections to finished models: restored, taken as they are, or trained
and resumed."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from kd_jax.config.schema import ModelPlan
from kd_jax.core.json_files import as_json
from kd_jax.core.pytree import count_parameters, fingerprint
from kd_jax.core.rng import fold_name, stream
from kd_jax.core.types import Variables
from kd_jax.experiments.build import build, example, input_shapes, make_group, total_steps
from kd_jax.experiments.scoring import Selection
from kd_jax.models.network import Network
from kd_jax.models.projectors.conditioning import CONDITION, Condition
from kd_jax.models.registry import describe
from kd_jax.teachers import conditioned_student
from kd_jax.teachers.frozen import FrozenTeachers, freeze
from kd_jax.training import saved_model
from kd_jax.training.checkpoints import Checkpoints
from kd_jax.training.context import RunContext
from kd_jax.training.loop import Intervals, train
from kd_jax.training.metrics_writer import MetricsWriter
from kd_jax.training.progress import StepProgress
from kd_jax.training.saved_model import SavedModel
from kd_jax.training.state import TrainState
from kd_jax.training.step import PeerGroup, train_step
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")


def obtain(
    plans: Sequence[ModelPlan], teachers: Mapping[str, TrainedModel], context: RunContext
) -> dict[str, TrainedModel]:
    """Finished models by name: found in the workdir, restored from another, taken as they are, or
      trained now.

    Args:
      plans: the section of a model, and of those that are trained together with it.
      teachers: the finished models that any of them learns from, by name.
      context: what all models of the run share.

    Raises:
      ValueError: for anything in a section that doesn't fit the data, the devices or the teachers.
    """
    built = {plan.name: build(plan, context) for plan in plans}
    conditions = {
        plan.name: conditioned_student.build_condition(plan, *built[plan.name], teachers, context)
        for plan in plans
    }
    found = {plan.name: _found(plan, *built[plan.name], teachers, context) for plan in plans}
    done = {name: each for name, each in found.items() if each is not None}
    if len(done) < len(plans):
        done = _fit(plans, built, conditions, teachers, context)
    models = {}
    for plan in plans:
        home, own = Path(plan.restore or context.workdir / plan.name), done[plan.name]
        variables, condition_map = context.parallel.place((own.variables, own.condition_map))
        models[plan.name] = TrainedModel(
            plan,
            built[plan.name][0],
            variables,
            own.description,
            home,
            (plan.view,),
            conditions[plan.name],
            condition_map,
        )
    return models


def _found(
    plan: ModelPlan,
    network: Network,
    initial: Variables,
    teachers: Mapping[str, TrainedModel],
    context: RunContext,
) -> SavedModel | None:
    """The finished model where nothing has to be trained for it."""
    done = saved_model.load(context.workdir / plan.name)
    if done is None and plan.restore:
        return _restored(plan, context, network, teachers)
    if done is None and not plan.objective:
        done = SavedModel(
            initial, _description(plan, network, initial, context, step=0, seconds=0.0)
        )
        _save(done, plan, context)
    return done


def _restored(
    plan: ModelPlan, context: RunContext, network: Network, teachers: Mapping[str, TrainedModel]
) -> SavedModel:
    done = saved_model.load_required(Path(str(plan.restore)))
    ours = _description(plan, network, done.variables, context, step=0, seconds=0.0)
    for key in ("spec", "view", "class_names"):
        if done.description[key] != ours[key]:
            raise ValueError(
                f"models.{plan.name}: {plan.restore} has {key} {done.description[key]}, the config {ours[key]}"
            )
    conditioned_student.check_restored(plan, done.description, teachers)
    expected = jax.eval_shape(network.init, jax.random.key(0), example(plan, context))
    for (path, wanted), found in zip(
        jax.tree.leaves_with_path(expected), jax.tree.leaves(done.variables), strict=True
    ):
        if wanted.shape != found.shape:
            raise ValueError(
                f"models.{plan.name}: {plan.restore} has shape {found.shape} at {path}, not {wanted.shape}"
            )
    log.info("%s: restored from %s, %s", plan.name, plan.restore, done.description["fingerprint"])
    done = replace(done, description=ours | dict(done.description))
    _save(done, plan, context)
    return done


def _save(done: SavedModel, plan: ModelPlan, context: RunContext) -> None:
    """Saves a model, and with it the tokenizer that it can't do without."""
    folder = context.workdir / plan.name
    if "tokenizer" in plan.view and jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        context.datasets.tokenizer(plan.view).save(str(folder / "tokenizer.json"))
    done.save(folder)


def _description(
    plan: ModelPlan,
    network: Network,
    variables: Variables,
    context: RunContext,
    *,
    step: int,
    seconds: float,
) -> dict[str, Any]:
    plain = {
        "spec": plan.model,
        "view": plan.view,
        "dtype": plan.dtype,
        "architecture": describe(network.module),
        "inputs": input_shapes(plan, context),
        "columns": context.datasets.columns,
    }
    return {key: as_json(value) for key, value in plain.items()} | {
        "class_names": list(context.datasets.splits["train"].class_names),
        "parameters": count_parameters(variables["params"]),
        "fingerprint": fingerprint(variables),
        "step": step,
        "train_seconds": seconds,
    }


def _fit(
    plans: Sequence[ModelPlan],
    built: Mapping[str, tuple[Network, Variables]],
    conditions: Mapping[str, Condition | None],
    models: Mapping[str, TrainedModel],
    context: RunContext,
) -> dict[str, SavedModel]:
    """Trains to the end, or goes on from the newest checkpoint; the chosen checkpoint becomes the
    finished models.

    What peers share, their checkpoints among it, is in the first one's section and folder. Each has
    taken the seconds that all of them took together."""
    training, folder = plans[0].training, context.workdir / plans[0].name
    context.parallel.check_batch(training["batch_size"], training["accumulate"])
    steps = total_steps(len(context.datasets.splits["train"]), training)
    cached = [name for plan in plans for name in plan.cached]
    source = context.datasets.training_source(plans[0].data)
    teachers = freeze(models, cached, source, context, mixed=bool(training.get("mixing")))
    networks = {name: network for name, (network, _) in built.items()}
    group = make_group(plans, networks, teachers, context, steps, conditions)
    key, members = stream(context.seed, "objective"), {}
    for plan in plans:
        members[plan.name] = group.models[plan.name].init(
            built[plan.name][1], fold_name(key, plan.seed_group)
        )
    state = context.parallel.place(TrainState(jax.numpy.zeros((), "int32"), members))
    keep = {key: context.checkpoint[key] for key in ("keep_latest", "keep_best")}
    with closing(Checkpoints(folder / "checkpoints", **keep)) as checkpoints:
        seconds = _train(plans, group, state, teachers, checkpoints, steps, context)
        use = (
            checkpoints.restore_best
            if context.checkpoint["use"] == "best"
            else checkpoints.restore_latest
        )
        chosen = use(state)
    assert chosen is not None, "training ends with a checkpoint"
    done = {plan.name: _trained(plan, group, *chosen, seconds, models, context) for plan in plans}
    for plan in plans:
        _save(done[plan.name], plan, context)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{folder.name} finished")
    return done


def _trained(
    plan: ModelPlan,
    group: PeerGroup,
    state: TrainState,
    meta: Mapping[str, Any],
    seconds: float,
    models: Mapping[str, TrainedModel],
    context: RunContext,
) -> SavedModel:
    variables, network = state.models[plan.name].variables(), group.models[plan.name].network
    description = _description(
        plan, network, variables, context, step=meta["step"], seconds=round(seconds, 1)
    )
    description["selection_accuracy"] = (
        meta["selection"][plan.name]["accuracy"] if meta["selection"] else None
    )
    condition_map = state.models[plan.name].term_params.get(CONDITION, {})
    return SavedModel(
        variables,
        description | conditioned_student.described(plan, condition_map, models),
        condition_map,
    )


def _train(
    plans: Sequence[ModelPlan],
    group: PeerGroup,
    state: TrainState,
    teachers: FrozenTeachers,
    checkpoints: Checkpoints,
    steps: int,
    context: RunContext,
) -> float:
    """Sets the loop up where the newest checkpoint left off and lets it run; seconds trained in
    all."""
    compiled = context.parallel.train(partial(train_step, group=group), state)
    views, names, training = (
        [plan.view for plan in plans],
        ", ".join(group.models),
        plans[0].training,
    )
    source = context.datasets.training_source(plans[0].data)
    batches = context.datasets.training_batches(
        source, [*views, *teachers.views], training, group.seed
    )
    state, meta = checkpoints.restore_latest(state) or (state, {"step": 0, "seconds": 0.0})
    if "position" in meta:
        batches.set_state(meta["position"])
        log.info("%s: resumed at step %d of %d", names, meta["step"], steps)
    selections = {
        plan.name: Selection(group.models[plan.name].network, plan, context) for plan in plans
    }
    with ExitStack() as stack:
        records = {
            name: MetricsWriter(context.workdir, name, resumed_at=meta["step"])
            for name in group.models
        }
        progress = StepProgress(
            names, total_steps=steps, start=meta["step"], batch_size=training["batch_size"]
        )
        for each in (*records.values(), progress):
            stack.enter_context(closing(each))
        return train(
            state,
            advance=lambda state, batch: compiled(state, teachers.variables, batch),
            batches=batches,
            rhythm=Intervals(
                steps, context.checkpoint["every_steps"], context.logging["every_steps"]
            ),
            evaluate=lambda state: {
                name: each(state.models[name].variables()) for name, each in selections.items()
            },
            checkpoints=checkpoints,
            records=records,
            progress=progress,
            stop=context.stop,
            seconds=meta["seconds"],
        )
