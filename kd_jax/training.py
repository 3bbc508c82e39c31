"""Models of a plan, from their sections to finished models: restored, taken as they are, or trained and resumed."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from kd_jax import conditioned, finished
from kd_jax.assembly import build, example, input_shapes, make_group, total_steps
from kd_jax.checkpoint import Checkpoints
from kd_jax.condition import CONDITION, Condition
from kd_jax.finished import Finished
from kd_jax.loop import Rhythm, train
from kd_jax.models import describe
from kd_jax.network import Network
from kd_jax.plan import ModelPlan
from kd_jax.progress import StepProgress
from kd_jax.randomness import fold_name, stream
from kd_jax.records import Records, as_json
from kd_jax.scoring import Selection
from kd_jax.step import Group, train_step
from kd_jax.surroundings import Model, Surroundings
from kd_jax.teachers.frozen import FrozenTeachers, freeze
from kd_jax.tree import count_parameters, fingerprint
from kd_jax.types import TrainState, Variables

log = logging.getLogger("kd_jax")


def obtain(plans: Sequence[ModelPlan], teachers: Mapping[str, Model], around: Surroundings) -> dict[str, Model]:
    """Finished models by name: found in the workdir, restored from another, taken as they are, or trained now.

    Args:
      plans: the section of a model, and of those that are trained together with it.
      teachers: the finished models that any of them learns from, by name.
      around: what all models of the run share.

    Raises:
      ValueError: for anything in a section that doesn't fit the data, the devices or the teachers.
    """
    built = {plan.name: build(plan, around) for plan in plans}
    conditions = {plan.name: conditioned.build_condition(plan, *built[plan.name], teachers, around) for plan in plans}
    found = {plan.name: _found(plan, *built[plan.name], teachers, around) for plan in plans}
    done = {name: each for name, each in found.items() if each is not None}
    if len(done) < len(plans):
        done = _fit(plans, built, conditions, teachers, around)
    models = {}
    for plan in plans:
        home, own = Path(plan.restore or around.workdir / plan.name), done[plan.name]
        variables, condition_map = around.parallel.place((own.variables, own.condition_map))
        models[plan.name] = Model(plan, built[plan.name][0], variables, own.description, home, (plan.view,),
                                  conditions[plan.name], condition_map)  # fmt: skip
    return models


def _found(
    plan: ModelPlan, network: Network, initial: Variables, teachers: Mapping[str, Model], around: Surroundings
) -> Finished | None:
    """The finished model where nothing has to be trained for it."""
    done = finished.load(around.workdir / plan.name)
    if done is None and plan.restore:
        return _restored(plan, around, network, teachers)
    if done is None and not plan.objective:
        done = Finished(initial, _description(plan, network, initial, around, step=0, seconds=0.0))
        _save(done, plan, around)
    return done


def _restored(plan: ModelPlan, around: Surroundings, network: Network, teachers: Mapping[str, Model]) -> Finished:
    done = finished.load_required(Path(str(plan.restore)))
    ours = _description(plan, network, done.variables, around, step=0, seconds=0.0)
    for key in ("spec", "view", "class_names"):
        if done.description[key] != ours[key]:
            raise ValueError(
                f"models.{plan.name}: {plan.restore} has {key} {done.description[key]}, the config {ours[key]}"
            )
    conditioned.check_restored(plan, done.description, teachers)
    expected = jax.eval_shape(network.init, jax.random.key(0), example(plan, around))
    for (path, wanted), found in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(done.variables), strict=True):
        if wanted.shape != found.shape:
            raise ValueError(
                f"models.{plan.name}: {plan.restore} has shape {found.shape} at {path}, not {wanted.shape}"
            )
    log.info("%s: restored from %s, %s", plan.name, plan.restore, done.description["fingerprint"])
    done = replace(done, description=ours | dict(done.description))
    _save(done, plan, around)
    return done


def _save(done: Finished, plan: ModelPlan, around: Surroundings) -> None:
    """Saves a model, and with it the tokenizer that it can't do without."""
    folder = around.workdir / plan.name
    if "tokenizer" in plan.view and jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        around.datasets.tokenizer(plan.view).save(str(folder / "tokenizer.json"))
    done.save(folder)


def _description(
    plan: ModelPlan, network: Network, variables: Variables, around: Surroundings, *, step: int, seconds: float
) -> dict[str, Any]:
    plain = {"spec": plan.model, "view": plan.view, "dtype": plan.dtype, "architecture": describe(network.module),
             "inputs": input_shapes(plan, around), "columns": around.datasets.columns}  # fmt: skip
    return {key: as_json(value) for key, value in plain.items()} | {
        "class_names": list(around.datasets.splits["train"].class_names),
        "parameters": count_parameters(variables["params"]),
        "fingerprint": fingerprint(variables),
        "step": step,
        "train_seconds": seconds,
    }


def _fit(
    plans: Sequence[ModelPlan], built: Mapping[str, tuple[Network, Variables]],
    conditions: Mapping[str, Condition | None], models: Mapping[str, Model], around: Surroundings,
) -> dict[str, Finished]:  # fmt: skip
    """Trains to the end, or goes on from the newest checkpoint; the chosen checkpoint becomes the finished models.

    What peers share, their checkpoints among it, is in the first one's section and folder. Each has taken the seconds
    that all of them took together.
    """
    training, folder = plans[0].training, around.workdir / plans[0].name
    around.parallel.check_batch(training["batch_size"], training["accumulate"])
    steps = total_steps(len(around.datasets.splits["train"]), training)
    cached = [name for plan in plans for name in plan.cached]
    source = around.datasets.training_source(plans[0].data)
    teachers = freeze(models, cached, source, around, mixed=bool(training.get("mixing")))
    networks = {name: network for name, (network, _) in built.items()}
    group = make_group(plans, networks, teachers, around, steps, conditions)
    key, members = stream(around.seed, "objective"), {}
    for plan in plans:
        members[plan.name] = group.learners[plan.name].init(built[plan.name][1], fold_name(key, plan.kin))
    state = around.parallel.place(TrainState(jax.numpy.zeros((), "int32"), members))
    keep = {key: around.checkpoint[key] for key in ("keep_latest", "keep_best")}
    with closing(Checkpoints(folder / "checkpoints", **keep)) as checkpoints:
        seconds = _train(plans, group, state, teachers, checkpoints, steps, around)
        use = checkpoints.restore_best if around.checkpoint["use"] == "best" else checkpoints.restore_latest
        chosen = use(state)
    assert chosen is not None, "training ends with a checkpoint"
    done = {plan.name: _trained(plan, group, *chosen, seconds, models, around) for plan in plans}
    for plan in plans:
        _save(done[plan.name], plan, around)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{folder.name} finished")
    return done


def _trained(
    plan: ModelPlan, group: Group, state: TrainState, meta: Mapping[str, Any], seconds: float,
    models: Mapping[str, Model], around: Surroundings,
) -> Finished:  # fmt: skip
    variables, network = state.members[plan.name].variables(), group.learners[plan.name].network
    description = _description(plan, network, variables, around, step=meta["step"], seconds=round(seconds, 1))
    description["selection_accuracy"] = meta["selection"][plan.name]["accuracy"] if meta["selection"] else None
    condition_map = state.members[plan.name].objective.get(CONDITION, {})
    return Finished(variables, description | conditioned.described(plan, condition_map, models), condition_map)


def _train(
    plans: Sequence[ModelPlan], group: Group, state: TrainState, teachers: FrozenTeachers, checkpoints: Checkpoints,
    steps: int, around: Surroundings,
) -> float:  # fmt: skip
    """Sets the loop up where the newest checkpoint left off and lets it run; seconds trained in all."""
    compiled = around.parallel.train(partial(train_step, group=group), state)
    views, names, training = [plan.view for plan in plans], ", ".join(group.learners), plans[0].training
    source = around.datasets.training_source(plans[0].data)
    batches = around.datasets.training_batches(source, [*views, *teachers.views], training, group.seed)
    state, meta = checkpoints.restore_latest(state) or (state, {"step": 0, "seconds": 0.0})
    if "position" in meta:
        batches.set_state(meta["position"])
        log.info("%s: resumed at step %d of %d", names, meta["step"], steps)
    selections = {plan.name: Selection(group.learners[plan.name].network, plan, around) for plan in plans}
    with ExitStack() as stack:
        records = {name: Records(around.workdir, name, resumed_at=meta["step"]) for name in group.learners}
        progress = StepProgress(names, total_steps=steps, start=meta["step"], batch_size=training["batch_size"])
        for each in (*records.values(), progress):
            stack.enter_context(closing(each))
        return train(
            state, advance=lambda state, batch: compiled(state, teachers.variables, batch), batches=batches,
            rhythm=Rhythm(steps, around.checkpoint["every_steps"], around.logging["every_steps"]),
            evaluate=lambda state: {name: each(state.members[name].variables()) for name, each in selections.items()},
            checkpoints=checkpoints, records=records, progress=progress, stop=around.stop, seconds=meta["seconds"],
        )  # fmt: skip
