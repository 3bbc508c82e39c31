"""One worker of a sweep: it claims runs one at a time, in a folder that it shares with others.

A run begins when the runs whose teachers it restores have ended. The worker goes on until all runs
have ended, since another one may be killed and leave a run behind."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_jax.config.hashing import config_hash
from kd_jax.core import seal
from kd_jax.core.csv_files import write_csv
from kd_jax.core.json_files import as_json, finite, read_facts, write_json
from kd_jax.experiments.run import run_experiment
from kd_jax.experiments.sweep.claims import Claim, Claims
from kd_jax.experiments.sweep.grid import Run, require_teachers
from kd_jax.experiments.sweep.summary import make_entry, rows, summarize
from kd_jax.experiments.sweep.workers import Outcomes, require_going_on
from kd_jax.experiments.workdir import AtWork
from kd_jax.training.interruption import Diverged, StopSignal

log = logging.getLogger("kd_jax")

POLL = 1.0
"""Seconds between two looks at the runs, where none can be claimed."""


def claim_one_by_one(runs: Sequence[Run], folder: Path, claims: Claims) -> Outcomes:
    """Does the runs that no other worker does, until all have ended.

    Args:
      runs: each after those it needs.
      folder: the sweep's.
      claims: this worker's.

    Yields:
      Each run that this worker has ended, before it is released.

    Raises:
      ValueError: if a run fails; it is free then, as all that this worker held.
      Interrupted: after SIGTERM, likewise.
    """
    # Made first, so that a signal before the first run isn't lost.
    stop = StopSignal()
    waiting = list(runs)
    while waiting:
        require_going_on(stop)
        claimed, waiting = _claim_next(waiting, folder, claims)
        if claimed is not None:
            run, claim = claimed
            yield from _hold(run, folder, claim, stop)
            waiting.remove(run)
        elif waiting:
            time.sleep(POLL)


def _claim_next(
    waiting: Sequence[Run], folder: Path, claims: Claims
) -> tuple[tuple[Run, Claim] | None, list[Run]]:
    """Returns a run with its claim, if there is one to do, and the runs that haven't ended."""
    looks = {run.name: claims.look(run.name) for run in waiting}
    left = [run for run in waiting if _read_outcome(run, looks[run.name].ended, folder) is None]
    names = {run.name for run in left}
    for run in left:
        look = looks[run.name]
        if look.free and not run.needs & names and (claim := claims.claim(run.name, look)):
            return (run, claim), left
    return None, left


def _hold(run: Run, folder: Path, claim: Claim, stop: StopSignal) -> Outcomes:
    """Does a claimed run and releases it, whatever comes."""
    log.info("%s begins", run.name)
    try:
        try:
            require_teachers(run)
            outcome = _run_when_free(run, folder, stop)
            claim.note(_identity(run))
        # Numbers that explode are a result of a setting, and no reason to end the sweep.
        except Diverged as error:
            outcome = error
            claim.note(_identity(run) | {"diverged": str(error)})
        # The summary is written meanwhile: a worker that is killed before that still holds the run.
        yield run, outcome
    finally:
        try:
            claim.release()
        except OSError as error:
            # What ended the run must be told, and not what followed from it.
            log.warning("%s couldn't be given back: %s", run.name, error.strerror)


def _run_when_free(run: Run, folder: Path, stop: StopSignal) -> Mapping[str, Any]:
    """Does a run, after who is at work in its folder without a claim: one that was taken for dead,
    or somebody who started this run alone."""
    told = False
    while True:
        # The run itself remembers only what comes from its own start on.
        require_going_on(stop)
        try:
            return run_experiment(run.config, folder / run.name, show=False)
        except AtWork as error:
            if not told:
                log.warning("%s; it is waited for", error)
            told = True
        time.sleep(POLL)


def write_summary(runs: Sequence[Run], folder: Path, claims: Claims) -> dict[str, Any]:
    """Writes sweep.json and sweep.csv of all runs that have ended, whoever did them.

    A worker that writes less than another one has just written finds that run when it looks again,
    and so writes once more: the last who writes has seen all.

    Returns:
      What stands in sweep.json.
    """
    while True:
        outcomes = [(run, _read_outcome(run, claims.noted(run.name), folder)) for run in runs]
        entries = [make_entry(run, found, folder) for run, found in outcomes if found is not None]
        found = summarize(entries, len(runs))
        there = read_facts(folder / "sweep.json", (), "it is made again")
        if there == finite(as_json(found)):
            return found
        # Aside in a folder of its own, as no two workers may write into one file.
        write_csv(claims.aside / "sweep.csv", rows(entries))
        write_json(claims.aside / "sweep.json", found)
        for name in ("sweep.csv", "sweep.json"):
            (claims.aside / name).replace(folder / name)


def _read_outcome(
    run: Run, noted: Mapping[str, Any] | None, folder: Path
) -> Mapping[str, Any] | Diverged | None:
    """Returns what became of a run, by the note of its end and its results.json; None before."""
    # A note of other evaluations, or of a sweep that nobody went on with, says nothing here.
    if noted is None or {key: noted.get(key) for key in ("config", "evaluations")} != _identity(
        run
    ):
        return None
    if "diverged" in noted:
        return Diverged(noted["diverged"])
    again = "the run is done again"
    found = read_facts(folder / run.name / "results.json", ("models", "order"), again)
    if found is None or (changed := seal.problem(folder / run.name, "results.json", found)):
        if found is not None:
            log.warning("%s: %s; %s", run.name, changed, again)
        return None
    return found


def _identity(run: Run) -> dict[str, Any]:
    """Returns what an ended run is the end of."""
    evaluations = as_json(run.config.get("evaluations", {}))
    return {"config": config_hash(run.config), "evaluations": evaluations}
