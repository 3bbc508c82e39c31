"""Runs an experiment: its models in order, each with earlier ones as its teachers, and a report."""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from kd_jax.config.load import resolve
from kd_jax.config.schema import FROM_MODEL, ModelPlan, Plan
from kd_jax.config.teachers import EMA, PEER
from kd_jax.core import seal
from kd_jax.core.json_files import as_json, write_json, write_rows
from kd_jax.core.shared_files import check_shared
from kd_jax.data.evaluation_sets import expand
from kd_jax.data.readers.stored_outputs import fingerprint_of
from kd_jax.data.run_datasets import Datasets, view_name
from kd_jax.data.source import Source
from kd_jax.experiments import report, robustness
from kd_jax.experiments.build import total_steps
from kd_jax.experiments.check_shapes import check_shapes
from kd_jax.experiments.examples import find_differing
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.reuse import set_aside
from kd_jax.experiments.scoring import covers, score
from kd_jax.experiments.stored_teachers import open_stored
from kd_jax.experiments.train_models import ModelTrainer
from kd_jax.experiments.training_sets import TrainingSets, check_data
from kd_jax.experiments.workdir import Workdir
from kd_jax.tasks import Task
from kd_jax.teachers.build_ensemble import assemble
from kd_jax.teachers.conditioned_student import score_with_teacher
from kd_jax.teachers.member_values import member_values
from kd_jax.training import trained_model
from kd_jax.training.context import RunContext
from kd_jax.training.interruption import StopSignal
from kd_jax.training.metrics_writer import write_evaluation
from kd_jax.training.profile import ProfiledSteps
from kd_jax.training.sharding import Parallel, make_parallel, set_precision
from kd_jax.training.trained_model import TrainedModel
from kd_jax.training.writers import FollowedRun, check_installed, open_writers

log = logging.getLogger("kd_jax")

EXAMPLES = "examples.json"

SPEED_BATCHES = {"batch_1": (1, 30), "batch_256": (256, 5)}
"""Name in results.json -> examples and repetitions of the inference that is timed."""


def run_experiment(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    reuse: bool = False,
    show: bool = True,
    teach: bool = False,
    profile: str | None = None,
) -> dict[str, Any]:
    """Runs, or resumes, or finds finished, the experiment of a config.

    Args:
      config: resolved, as plain Python values; a key that is absent counts as its default.
      workdir: the run's folder.
      reuse: whether a folder of another config is taken over: models whose own sections, data and
        teachers are unchanged stay, the others are moved to its folder `replaced` and trained anew.
      show: whether the table of results is printed.
      teach: whether it ends once the outputs of all cached teachers are kept, before anything is
        trained that no other model needs.
      profile: FIRST:LAST, the steps of each training that are profiled, in `workdir/MODEL/profile`.

    Returns:
      What stands in `workdir/results.json`; nothing if it ended before.

    Raises:
      ValueError: for a config that can't be run, in one line, before anything is trained.
      Interrupted: after SIGTERM; the same call resumes.
    """
    # Made before anything else, so that a signal while the data is opened isn't lost.
    stop = StopSignal()
    plan = make_plan(config)
    check_installed(plan.config["logging"]["writers"])
    profiled = None if profile is None else ProfiledSteps.parse(profile)
    # Before the first array is made, since jax would make it float32.
    set_precision([model.dtype for model in plan.models])
    parallel = make_parallel(**plan.config["parallel"])
    # The folder is claimed before the data is read: a second process shall fail at once.
    adapt = partial(set_aside, plan=plan) if reuse else None
    with closing(Workdir(Path(workdir), plan.config, adapt)) as folder, ExitStack() as stack:
        found = _finished(folder, plan)
        if found is not None and _are_whole(folder.path, plan, found):
            if show:
                report.show(found, folder.path)
            return found
        context = open_run(plan, folder, parallel, stop)
        # Whatever can be checked is checked before the first training, which may take hours.
        models = open_stored(plan, context)
        if models:
            prints = {name: model.description["fingerprint"] for name, model in models.items()}
            folder.require_same("outputs", prints, "stored outputs changed since this run began")
        check_shapes(plan, context, models)
        sets = TrainingSets(plan, context)
        if profiled is not None:
            _check_profile(profiled, plan, context)
        names, followed = plan.config["logging"]["writers"], FollowedRun(folder.path, plan.config)
        # Opened when all that can be refused is: a refused run begins none of a service's.
        writers = stack.enter_context(open_writers(names, followed))
        context = replace(context, writers=writers, profile=profiled)
        for group in plan.groups:
            if group[0].name in models:
                continue
            for model in group:
                # A set may be made by a model that is finished by now.
                sets.make(model.data, models)
                names = ", ".join(_teacher_names(model))
                told = f"learns from {names}" if names else "no teacher"
                log.info("%s: %s%s", model.name, told, _start(model))
            if group[0].members:
                members = {name: models[name] for name in group[0].members}
                models[group[0].name] = assemble(group[0], members, context)
                continue
            teachers = {name: models[name] for model in group for name in model.teachers}
            # The devices belong to what is trained next and to whom it asks.
            for each in models.values():
                each.release()
            trainer = ModelTrainer(group, teachers, context)
            # A finished or restored model is found before anything is trained again.
            found = trainer.find()
            if found is None and teach and not any(each.name in plan.asked for each in group):
                trainer.teach()
                continue
            models |= found or trainer.fit()
        if teach:
            return {}
        sets.make_the_rest(models)
        results = seal.seal(_report(plan, models, context) | sets.facts)
        _write_evaluations(results, context)
        # Written last: its presence says that the run is finished.
        write_json(folder.path / "results.json", results)
        # Only now: until here a damaged model is made again from its checkpoints.
        if not plan.config["checkpoint"]["keep_finished"]:
            _remove_checkpoints(folder.path, plan)
        if show:
            report.show(results, folder.path)
        return results


def _check_profile(steps: ProfiledSteps, plan: Plan, context: RunContext) -> None:
    """Refuses steps that a training doesn't have, naming the model."""
    rows = len(context.datasets.splits["train"])
    for model in plan.models:
        if model.objective and not model.restore:
            steps.check(model.name, total_steps(rows, model.training))


def _write_evaluations(results: Mapping[str, Any], context: RunContext) -> None:
    """Writes what every model reached beside its metrics of training."""
    for name in results["order"]:
        entry = results["models"][name]
        values = dict(entry["metrics"])
        for dataset, found in results["evaluations"].items():
            values |= {f"{dataset}/{key}": value for key, value in found.get(name, {}).items()}
        known = {key: value for key, value in values.items() if _is_number(value)}
        if known:
            write_evaluation(context.workdir, name, entry["step"] or 0, known, context.writers)


def _is_number(value: Any) -> bool:
    # An undefined metric is None; JSON has no NaN or infinity.
    return isinstance(value, int | float) and math.isfinite(value)


def run(
    config: Any, workdir: str | Path, *, reuse: bool = False, profile: str | None = None
) -> dict[str, Any]:
    """Runs, or resumes, or finds finished, an experiment.

    Args:
      config: a ConfigDict, as `kd_jax.experiment` or a config file gives it, or plain mappings;
        what its models inherit is completed here.
      workdir: the run's folder.
      reuse: whether a folder of another config is taken over: models whose own sections, data and
        teachers are unchanged stay, the others are moved to its folder `replaced` and trained anew.
      profile: FIRST:LAST, the steps of each training that are profiled, in `workdir/MODEL/profile`.

    Returns:
      What stands in `workdir/results.json`.

    Raises:
      ValueError: for a config that can't be run, in one line, before anything is trained.
      Interrupted: after SIGTERM; the same call resumes.
    """
    return run_experiment(resolve(config), workdir, reuse=reuse, profile=profile)


def open_run(plan: Plan, folder: Workdir, parallel: Parallel, stop: StopSignal) -> RunContext:
    """Opens the data of a run, and writes down in its folder what of them was left out.

    Raises:
      ValueError: for data that can't be read, or that changed since the run began.
    """
    config = plan.config
    _check_writable(config["checkpoint"].get("outputs_dir"))
    datasets = Datasets(config["data"], config["evaluations"], plan.task, taught=plan.taught)
    # What these rows rule out is refused before anything is trained.
    check_data(plan, datasets, folder.path)
    write_rows(folder.path / "rejected.jsonl", datasets.rejected())
    write_rows(folder.path / "quarantine.jsonl", datasets.quarantined())
    log.info(
        "cleaning (%(mode)s): %(kept)d of %(rows)d training rows kept; %(quarantined)s",
        datasets.cleaning,
    )
    log.info("%s", datasets.tell_labels()[0])
    if datasets.task.needs_labels and datasets.unlabelled:
        log.info(
            "%d of the training rows have no label: only what compares with a teacher learns from"
            " them",
            datasets.unlabelled,
        )
    # On other data the models that are finished already would not be comparable.
    folder.require_same("data", datasets.fingerprint(), "the data changed since this run began")
    # A tokenizer is named by a folder, whose content may change between two starts.
    tokenizers = {
        view_name(model.view): datasets.tokenizer_identity(model.view)
        for model in plan.models
        if "tokenizer" in model.view
    }
    folder.require_same("tokenizers", tokenizers, "a tokenizer changed since this run began")
    return RunContext(
        folder.path,
        datasets,
        parallel,
        config["seed"],
        config["checkpoint"],
        config["logging"],
        stop,
    )


def _check_writable(outputs_dir: str | None) -> None:
    """Refuses a folder for teachers' outputs in which none can be written."""
    if outputs_dir is None:
        return
    folder = Path(outputs_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        told = error.strerror or error
        raise ValueError(f"checkpoint.outputs_dir: {folder} can't be written to: {told}") from None
    check_shared(folder, "checkpoint.outputs_dir")


def _finished(folder: Workdir, plan: Plan) -> dict[str, Any] | None:
    """Returns an earlier run's results, if they are of the evaluations that are asked for now."""
    found = folder.results()
    if found is None:
        return None
    # Results that don't say what they were evaluated on are older than that entry.
    there = found.get("evaluated_on", dict.fromkeys(found["evaluations"]))
    return found if there == _evaluated_on(plan) else None


def _are_whole(folder: Path, plan: Plan, results: Mapping[str, Any]) -> bool:
    """Tells whether a finished run's models are as they were written, and its results theirs."""
    for model in plan.models:
        # An ensemble has no weights of its own.
        if model.members:
            continue
        if model.outputs is not None:
            told = results["models"].get(model.name, {}).get("fingerprint")
            if fingerprint_of(Path(model.outputs).expanduser()) != told:
                log.warning("the outputs of %s changed; the models are evaluated again", model.name)
                return False
            continue
        found = trained_model.load(folder / model.name)
        told = results["models"].get(model.name, {}).get("fingerprint")
        if found is None or found.description["fingerprint"] != told:
            log.warning("results.json is not of the models there; they are evaluated again")
            return False
    return True


def _remove_checkpoints(folder: Path, plan: Plan) -> None:
    """Frees what is many times the size of the finished models, and of no use without a training
    to go on with."""
    if jax.process_index() == 0:
        for model in plan.models:
            shutil.rmtree(folder / model.name / "checkpoints", ignore_errors=True)


def _evaluated_on(plan: Plan) -> dict[str, Any]:
    """Returns the sections of the further datasets, as JSON has them."""
    # Through JSON and back, because the stored side has lists where configs have tuples.
    return json.loads(json.dumps(expand(plan.config["evaluations"])))


def _teacher_names(model: ModelPlan) -> list[str]:
    """Returns the names of a model's teachers, as its section gives them."""
    average = [f"{EMA}{model.name}"] if model.decay is not None else []
    return [*model.teachers, *(f"{PEER}{peer}" for peer in model.peers), *average]


def _teachers(model: ModelPlan, models: Mapping[str, TrainedModel]) -> dict[str, TrainedModel]:
    """Returns the finished models that a model learned from."""
    return {
        # A moving average is no model of its own when training has ended.
        name: models[name.removeprefix(PEER)]
        for name in _teacher_names(model)
        if not name.startswith(EMA)
    }


def _start(model: ModelPlan) -> str:
    """Says whose weights a model starts from, if not from random ones."""
    if FROM_MODEL in model.model:
        return f", starts from {model.model[FROM_MODEL]}"
    return f", starts from {model.model['pretrained']}" if "pretrained" in model.model else ""


def _report(plan: Plan, models: Mapping[str, TrainedModel], context: RunContext) -> dict[str, Any]:
    """Evaluates every model and sets the compared ones side by side."""
    # Rounded down to what the devices divide, but never to 0.
    batch_size = max(plan.config["training"]["batch_size"], context.parallel.devices)
    batch_size -= batch_size % context.parallel.devices
    # Only now do models see the evaluation split; nothing was chosen by it.
    evaluation = context.datasets.splits["evaluation"]
    entries, compared = {}, {}
    # Each of these is asked about the split once, however many learned from it.
    asked = {each.plan.name for one in plan.models for each in _teachers(one, models).values()}
    if context.datasets.task.valued:
        asked |= {name for one in plan.models for name in one.members}
    for model in plan.models:
        if not covers(models[model.name], evaluation):
            log.warning("%s has no outputs on the evaluation split", model.name)
            entries[model.name] = _entry(models[model.name], {}, context.datasets.task)
            continue
        scores = score(
            models[model.name],
            _teachers(model, models),
            evaluation,
            context,
            batch_size,
            asked=model.name in asked,
        )
        entries[model.name] = _entry(models[model.name], scores, context.datasets.task)
        # Only these are compared row by row; others' outputs needn't stay in memory.
        if model.name in plan.config["compare"].values():
            compared[model.name] = scores
        entries[model.name] |= score_with_teacher(
            models[model.name], _teachers(model, models), evaluation, context, batch_size
        )
        # What each member adds to the primary metric.
        if model.members and context.datasets.task.valued:
            members = {name: models[name] for name in model.members}
            entries[model.name]["shapley"] = member_values(
                models[model.name], members, evaluation, context
            )
    roles, primary = plan.config["compare"], context.datasets.task.primary
    write_json(context.workdir / EXAMPLES, _examples(compared, roles, evaluation))
    # Further datasets come after all models are there, as each one is opened once for all.
    elsewhere = robustness.evaluate_all(models, context, batch_size)
    return {
        "experiment": plan.config["name"],
        "seed": plan.config["seed"],
        "finished": True,
        "config": as_json(plan.config),
        "task": context.datasets.task.describe(),
        "primary": context.datasets.task.primary,
        "order": [model.name for model in plan.models],
        "compare": dict(roles),
        "models": entries,
        **report.compare(entries, roles, context.datasets.task),
        **report.gain_interval(compared, roles, context.datasets.task, plan.config["seed"]),
        "speedup": _speedup(models[roles["teacher"]], models[roles["student"]], context),
        "evaluations": elsewhere,
        "robustness": robustness.summarize(
            {name: entry["metrics"][primary] for name, entry in entries.items()},
            elsewhere,
            primary,
        ),
        "evaluated_on": _evaluated_on(plan),
        "environment": report.environment(
            context.datasets.fingerprint(), context.datasets.splits["train"].provenance
        ),
        "rejected": len(context.datasets.rejected()),
        "cleaning": context.datasets.cleaning,
        "truncated": context.datasets.truncated,
        "unlabelled": context.datasets.unlabelled,
        "labels": (labels := context.datasets.tell_labels()[1]),
        # Also by its old name.
        **({"classes": labels} if "largest_share" in labels else {}),
    }


def _examples(
    compared: Mapping[str, Mapping[str, Any]], roles: Mapping[str, str], source: Source
) -> dict[str, Any]:
    """Finds examples for the report; a fault of theirs must not cost the results of hours."""
    try:
        return find_differing(compared, roles, source)
    except Exception as error:
        log.warning("no examples for the report: %s: %s", type(error).__name__, error)
        return {}


def _entry(model: TrainedModel, scores: Mapping[str, Any], task: Task) -> dict[str, Any]:
    entry = {
        "teachers": _teacher_names(model.plan),
        "data": list(model.plan.data),
        "origin": _origin(model.plan),
        "parameters": model.parameters,
        "metrics": {name: scores.get(name) for name in ("loss", *task.metrics)},
        # Also by themselves, as in the results of earlier versions.
        **{name: scores[name] for name in ("accuracy", "loss", "ece") if name in scores},
        **scores.get("details", {}),
        "fingerprint": model.description["fingerprint"],
        "train_seconds": model.description["train_seconds"],
        "step": model.description["step"],
        "selection": model.description.get("selection"),
        "selection_accuracy": model.description.get("selection_accuracy"),
    }
    entry |= {
        key: model.description[key] for key in ("members", "weights") if key in model.description
    }
    # A model without teachers has no agreement to report.
    compared = [key for key in ("agreement", task.divergence) if key and scores.get(key)]
    return entry | {key: scores[key] for key in compared}


def _origin(plan: ModelPlan) -> str:
    """Says where a model comes from: trained in this run, taken over, or made of others."""
    if plan.members:
        return "ensemble"
    if plan.outputs is not None:
        return "stored outputs"
    if plan.restore:
        return "restored"
    return "trained" if plan.objective else "as published"


def _speedup(teacher: TrainedModel, student: TrainedModel, context: RunContext) -> dict[str, float]:
    """Measures how many times faster the student infers than the teacher, compiled, on one
    device.
    """
    speedups: dict[str, float] = {}
    # Nobody knows how long it took to compute outputs that are there.
    if teacher.stored is not None:
        return speedups
    for name, (examples, repetitions) in SPEED_BATCHES.items():
        # Both are timed on the same examples, each in its own view.
        views = [*teacher.views, *student.views]
        source = context.datasets.splits["evaluation"]
        batch = next(
            iter(context.datasets.evaluation_batches(source, views, examples * context.processes))
        )
        times = [
            report.inference_seconds(model, batch, repetitions) for model in (teacher, student)
        ]
        speedups[name] = times[0] / times[1]
    return speedups
