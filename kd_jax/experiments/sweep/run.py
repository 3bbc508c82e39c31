"""A sweep: a grid of overrides x seeds over one config, each run in its own workdir, and a table of
  mean ± std.

The sweep file is JSON; its grid's paths are those of the flags without `--config.`, its lists stand
for tuples too:

  {"seeds": [0, 1, 2], "grid": {"models.student.objective.soft.temperature": [1.0, 4.0]}, "devices":
  [0, 1]}

Without "grid" it is the config itself, once a seed. Without "devices" the runs follow one another
in this process, on all devices; with them each run is a process of its own that sees one GPU (its
number in CUDA_VISIBLE_DEVICES).

Runs share teachers. A teacher that is trained and learns from no other is trained once for each
different section of the config that it gets (seed apart) and restored by the later runs. So all
seeds share one teacher, the spread of the students is that of their own seeds, and the statistics
count such a teacher once. An assistant is trained in every run."""

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax.config.load import plain
from kd_jax.core.csv_files import write_csv
from kd_jax.core.json_files import read_facts, write_json
from kd_jax.experiments.run import run_experiment
from kd_jax.experiments.sweep.claims import Claims
from kd_jax.experiments.sweep.grid import Run, lay_out, read
from kd_jax.experiments.sweep.queue import claim_one_by_one, write_summary
from kd_jax.experiments.sweep.summary import make_entry, rows, show, summarize
from kd_jax.experiments.sweep.workers import Outcomes, over_devices, require_going_on
from kd_jax.experiments.workdir import Workdir
from kd_jax.training.interruption import Diverged, StopSignal

log = logging.getLogger("kd_jax")


def run_sweep(
    config: ConfigDict, file: Path, workdir: Path, *, join: bool = False
) -> dict[str, Any]:
    """Runs, or goes on with, a sweep. A run whose numbers stop being finite is noted and the others
    go on.

    Args:
      config: inherited, its references live (`kd_jax.config.load.load_config`); it isn't changed.
      file: the sweep file.
      workdir: the sweep's folder: a folder a run, and `sweep.json` and `sweep.csv` (a row for each
        model of each run), written after each of them. It
        can't be moved before the sweep is finished, since runs name the teachers they restore by
        their full path.
      join: whether the folder is shared with others who do runs of the same sweep, each with the
        same call, on any machine; this call then ends when all runs have ended, whoever did them.

    Returns:
      What stands in `sweep.json`. "finished": whether all runs are there. "runs": setting, seed,
        workdir, models and
      gain, or why it diverged. "settings": setting, seeds, diverged seeds, models and gain; each
      number is a mean, a sample standard deviation (None for n = 1) and n, or None where no run has
      it. A model has its metrics, the primary one on the selection split too, and "evaluations",
      the primary one on further datasets.

    Raises:
      ValueError: for a file or a run that isn't right, or a folder of another sweep or config; in
        one line.
      Interrupted: after SIGTERM; the same call goes on.
    """
    spec = read(file)
    # Taken out before the folder is claimed: the next start may use other devices.
    devices = spec.pop("devices", None)
    _check_place(devices, join=join)
    if devices is not None:
        # The GPUs are the runs', so this process must not take them.
        jax.config.update("jax_platforms", "cpu")
    # All runs are checked here, before the first of them begins.
    runs = lay_out(config, spec, workdir.resolve())
    with closing(Workdir(workdir, plain(config) | {"sweep": spec}, shared=join)) as folder:
        found = _join(runs, folder.path) if join else _run_all(runs, folder.path, devices)
        show(found, plain(config), folder.path)
        return found


def _check_place(devices: Sequence[int] | None, *, join: bool) -> None:
    """Refuses what a process of a cluster, or a worker among others, can't do.

    Raises:
      ValueError: in one line.
    """
    if jax.distributed.is_initialized():
        if join:
            raise ValueError("a worker that joins a sweep is one process, and no cluster of them")
        if devices is not None:
            raise ValueError(
                '"devices" in the sweep file are those of one machine; leave them out in a cluster'
            )
    elif join and devices is not None:
        raise ValueError(
            '"devices" in the sweep file are for one process that does all runs; leave them out and'
            " start a worker a device, each with its CUDA_VISIBLE_DEVICES"
        )


def _run_all(runs: Sequence[Run], folder: Path, devices: Sequence[int] | None) -> dict[str, Any]:
    # Runs of an earlier start keep their entries until they are done again.
    done = _earlier(folder / "sweep.json")
    found: dict[str, Any] = {}
    # Closing the generator stops the processes that it has started, also after an error.
    with closing(
        over_devices(runs, folder, devices) if devices else _one_by_one(runs, folder)
    ) as outcomes:
        for ended, outcome in outcomes:
            _tell(ended, outcome)
            done[ended.name] = make_entry(ended, outcome, folder)
            found = summarize([done[each.name] for each in runs if each.name in done], len(runs))
            # Written after every run, so that a stopped sweep can be read as far as it got.
            write_json(folder / "sweep.json", found)
            write_csv(folder / "sweep.csv", rows(found["runs"]))
    return found


def _join(runs: Sequence[Run], folder: Path) -> dict[str, Any]:
    with closing(Claims(folder)) as claims:
        # Closing the generator releases the run that it holds, also after an error.
        with closing(claim_one_by_one(runs, folder, claims)) as outcomes:
            for ended, outcome in outcomes:
                _tell(ended, outcome)
                write_summary(runs, folder, claims)
        return write_summary(runs, folder, claims)


def _tell(ended: Run, outcome: object) -> None:
    if isinstance(outcome, Diverged):
        log.warning("%s diverged: %s", ended.name, outcome)


def _one_by_one(runs: Sequence[Run], folder: Path) -> Outcomes:
    stop = StopSignal()
    for number, each in enumerate(runs, start=1):
        require_going_on(stop)
        log.info("run %d of %d: %s", number, len(runs), each.name)
        try:
            outcome = run_experiment(each.config, folder / each.name, show=False)
        # Numbers that explode are a result of a setting, and no reason to end the sweep.
        except Diverged as error:
            outcome = error
        yield each, outcome


def _earlier(file: Path) -> dict[str, dict[str, Any]]:
    """Returns the runs that an earlier start noted, by name."""
    # Runs that are finished are found so, and their entries are made again.
    found = read_facts(file, ("runs",), "its entries are made again") or {"runs": []}
    return {Path(entry["workdir"]).name: entry for entry in found["runs"]}
