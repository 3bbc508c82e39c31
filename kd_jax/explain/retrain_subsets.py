"""What each piece of a student's training is worth: the student trained anew with each subset, all
else equal."""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kd_jax.analysis.shapley import shapley_values
from kd_jax.config.schema import EMBEDDINGS, FROM_MODEL, ModelPlan
from kd_jax.core.json_files import write_json
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.scoring import score
from kd_jax.experiments.train_models import obtain
from kd_jax.experiments.workdir import Workdir
from kd_jax.explain.pieces_of_training import Pieces
from kd_jax.explain.run import Run
from kd_jax.training.interruption import Interrupted
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")

EXACT_PLAYERS = 6
"""The most players whose every subset is trained."""
LONGEST = 100
"""Characters of a subset's folder; a longer name gives way to its digest."""


def value_training(
    run: Run, model: str, players: Pieces, permutations: int | None
) -> dict[str, Any]:
    """Computes Shapley values of the pieces of a model's training.

    A subset's value is the accuracy on the evaluation split.

    The whole is the run's own model, and the empty subset a guess. Every other subset is trained
    once, in `RUN/explain/<kind>/<subset>`, from the same initial weights on the same batches, under
    the run's own teachers. One seed's values carry that seed's noise.

    Args:
      run: the run.
      model: the model's name.
      players: the pieces.
      permutations: to sample; None: exact values, of at most `EXACT_PLAYERS` players.

    Returns:
      What stands in explain.json under the players' kind.

    Raises:
      ValueError: if the model wasn't trained in this run, there are too many players, or
        `permutations` don't fit.
      Interrupted: after SIGTERM; the same call goes on.
    """
    plan, count = run.plan[model], len(players.names)
    # A model that wasn't trained here leaves no training whose pieces could be valued.
    if plan.restore or not plan.objective:
        raise ValueError(
            f"models.{model} wasn't trained in this run: explain the one that trained it"
        )
    # Without a term the peers would change as well, so no piece's value would be its own.
    if plan.peers:
        raise ValueError(
            f"models.{model} was trained together with {', '.join(plan.peers)}, not by itself"
        )
    if permutations is None and count > EXACT_PLAYERS:
        raise ValueError(
            f"{count} {players.kind} have {2**count - 2} subsets to train, and exact values are"
            f" limited to"
            f" {EXACT_PLAYERS} {players.kind}; sample them with --permutations=N"
        )
    # Claimed like a run's folder, so that two calls never train in it at the same time.
    with closing(Workdir(run.folder / players.kind, run.plan.config)) as home:
        accuracy, everything = _Accuracy(run, model, players, home.path), frozenset(players.names)
        # The two ends of the game cost no training: a guess, and the run's own model.
        known = {
            frozenset(): 1 / len(run.class_names),
            everything: run.results["models"][model]["accuracy"],
        }

        # Many permutations pass through the same subset, which must be trained once only.
        def value(subset: frozenset) -> float:
            if subset not in known:
                known[subset] = accuracy(subset)
            return known[subset]

        values, errors = shapley_values(
            value, players.names, permutations=permutations, seed=run.context.seed
        )
        return {
            "model": model,
            "values": values,
            "standard_errors": errors,
            "all": known[everything],
            "empty": known[frozenset()],
            "permutations": permutations,
            "seed": run.context.seed,
            "subsets": {
                "+".join(n for n in players.names if n in subset): worth
                for subset, worth in known.items()
            },
        }


def _read_accuracy(file: Path) -> float | None:
    """Reads what an earlier call found; None, announced, where that can't be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, float | int) and 0 <= found <= 1:
            return found
        reason = "no accuracy stands in it"
    except (OSError, ValueError) as error:
        reason = str(error)
    log.warning("%s can't be read (%s); the subset is evaluated again", file, reason)
    return None


class _Accuracy:
    """The accuracy of a model trained with a subset of its players, found in the subset's folder or
    made there."""

    def __init__(self, run: Run, model: str, players: Pieces, home: Path):
        self._run, self._model, self._players, self._home = run, model, players, home
        self._teachers: dict[str, TrainedModel] = {}
        self._asked = 0

    def __call__(self, subset: frozenset) -> float:
        self._asked += 1
        names = [name for name in self._players.names if name in subset]
        # One file for each subset, so that a stopped call goes on where it was.
        kept = self._home / folder_of(names) / self._model / "accuracy.json"
        if kept.is_file() and (known := _read_accuracy(kept)) is not None:
            return known
        # Asked before a training begins, as the training itself only asks between its steps.
        if self._run.context.stop.asked(agree=True):
            raise Interrupted("stopped before the next subset; the same command resumes it")
        log.info(
            "subset %d (of at most %d): %s",
            self._asked,
            2 ** len(self._players.names) - 2,
            ", ".join(names),
        )
        found = self._trained(subset, kept.parent.parent)
        write_json(kept, found)
        return found

    def _trained(self, subset: frozenset, folder: Path) -> float:
        run, plan = self._run, make_plan(self._players.config_of(subset))[self._model]
        # A folder for each subset keeps its checkpoints apart from all others'.
        context = run.context.within(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Teachers are the run's own for every subset, so they are loaded once.
        self._teachers = self._teachers or run.models(plan.teachers, teaching=True)
        teachers = {name: self._teachers[name] for name in plan.teachers}
        model = obtain([_from_here(plan, run.path)], teachers, context)[plan.name]
        source = context.datasets.splits["evaluation"]
        return score(model, {}, source, context, plan.training["batch_size"])["accuracy"]


def _from_here(plan: ModelPlan, run: Path) -> ModelPlan:
    """Returns the plan, which starts from an earlier model of the run if it did so there."""
    model = _by_path(plan.model, run)
    if EMBEDDINGS in model:
        model[EMBEDDINGS] = _by_path(model[EMBEDDINGS], run)
    return replace(plan, model=model)


def _by_path(section: Mapping[str, Any], run: Path) -> dict[str, Any]:
    # The earlier model lies in the run's folder and not in the subset's, so its path is given.
    others = {key: value for key, value in section.items() if key != FROM_MODEL}
    if FROM_MODEL not in section:
        return others
    return others | {"pretrained": str(run / section[FROM_MODEL])}


def folder_of(names: list[str]) -> str:
    """Names a subset's folder, another for every other one."""
    # Quoted, since a name with a slash or a plus sign could mean another subset's folder.
    joined = "+".join(quote(name, safe="") for name in names)
    return joined if len(joined) <= LONGEST else hashlib.sha256(joined.encode()).hexdigest()[:16]
