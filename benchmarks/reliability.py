"""Kills a run at chosen renames, and damages every file of a run's folder in turn; counts what
comes of it.

  uv run benchmarks/reliability.py --kills=30 --output=reliability.json

A rename is where a file or checkpoint becomes visible, so just before and just after one are the
moments at which a kill could leave something half done. A run that is killed and started again, or
whose file was damaged, must end with the fingerprints of an undisturbed one, or say in one line
what to do."""

import argparse
import collections
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COUNT = "KD_JAX_RENAMES"


def config(seed: int = 0) -> dict[str, Any]:
    """Returns a run of seconds that saves often: a teacher, a student and its baseline."""
    from kd_jax.config.load import load_config, plain

    found = load_config(str(ROOT / "configs" / "digits.py"), smoke=True)
    found.update_from_flattened_dict(
        {"seed": seed, "parallel.data": 1, "checkpoint.every_steps": 2, "logging.every_steps": 1}
    )
    return plain(found)


def fingerprints(results: dict[str, Any]) -> dict[str, str]:
    """Returns the models' fingerprints."""
    return {name: model["fingerprint"] for name, model in results["models"].items()}


# In a process of its own: a run that ends at a rename


def child(workdir: Path, at: int, *, after: bool) -> None:
    """Runs, and kills itself at the rename of that number; 0 only counts them."""
    seen = 0

    def watched(function):
        def rename(*arguments, **options):
            nonlocal seen
            seen += 1
            if seen == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = function(*arguments, **options)
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return rename

    from kd_jax.experiments.run import run_experiment

    os.rename, os.replace = watched(os.rename), watched(os.replace)
    run_experiment(config(), workdir)
    print(f"{COUNT} {seen}")


def start(workdir: Path, at: int = 0, *, after: bool = False) -> subprocess.CompletedProcess:
    """Starts `child` and waits for its end."""
    command = [sys.executable, __file__, "--child", str(workdir), str(at), str(int(after))]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def kill_at_renames(scratch: Path, kills: int) -> dict[str, Any]:
    """Kills runs at renames spread over the whole run; returns counts."""
    alone = start(scratch / "alone")
    assert alone.returncode == 0, alone.stderr
    total = int(alone.stdout.split(COUNT)[1].split()[0])
    wanted = fingerprints(json.loads((scratch / "alone" / "results.json").read_text()))
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(kills):
        at, after = 1 + number * total // kills, bool(number % 2)
        folder = scratch / f"kill-{number}"
        killed = start(folder, at, after=after)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        again = start(folder)
        if again.returncode != 0:
            outcome = "failed"
        else:
            found = fingerprints(json.loads((folder / "results.json").read_text()))
            outcome = "equal end" if found == wanted else "another end"
        outcomes[outcome] += 1
        print(f"killed {'after' if after else 'before'} rename {at} of {total}: {outcome}")
        if outcome == "equal end":
            shutil.rmtree(folder)
    return {"renames": total, "kills": kills, **outcomes}


# In this process: damaged files


def flip(content: bytes) -> bytes:
    """Flips one bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "truncated": lambda content, _: content[: len(content) // 2],
    "flipped": lambda content, _: flip(content) if content else content,
    "emptied": lambda *_: b"",
    "replaced": lambda _, other: other,
}
"""Name -> the file's content, and the content of another run's file of that name -> the damage."""


def outcome_of(folder: Path, wanted: dict[str, str]) -> tuple[str, str]:
    """Starts a damaged run again; returns what became of it, and the message."""
    from kd_jax.experiments.run import run_experiment
    from kd_jax.training.checkpoints import CheckpointError

    try:
        found = fingerprints(run_experiment(config(), folder))
    except (ValueError, CheckpointError) as error:
        line = str(error)
        # What tells people nothing is no message.
        return ("one line" if "\n" not in line and len(line) > 30 else "raw error"), line
    except Exception as error:
        return "raw error", f"{type(error).__name__}: {error}"
    return ("equal end" if found == wanted else "another end"), ""


def stopped_run(folder: Path, seed: int) -> None:
    """Leaves a run that was stopped in the middle of its last model, with checkpoints of it."""
    from kd_jax.experiments.run import run_experiment
    from kd_jax.training.interruption import Interrupted, StopSignal

    asked, real = [], StopSignal.asked

    def at_the_end(self, *, agree):
        # Counted, since a checkpoint is written in the background while steps go on.
        if (folder / "student" / "checkpoints").is_dir():
            asked.append(agree)
        return len(asked) == 3 or real(self, agree=agree)

    StopSignal.asked = at_the_end
    try:
        run_experiment(config(seed), folder)
    except Interrupted:
        return
    finally:
        StopSignal.asked = real
    raise AssertionError("the run was to be stopped")


def damage_every_file(scratch: Path, wanted: dict[str, str], most: int | None) -> dict[str, Any]:
    """Damages each file of a finished and of a stopped run; returns counts and what went wrong.

    Args:
      scratch: where the runs are.
      wanted: the fingerprints of an undisturbed run.
      most: damages of each of the two that are tried, spread over all; None: all.
    """
    from kd_jax.experiments.run import run_experiment

    states: dict[str, tuple[Path, Path]] = {}
    for seed, name in ((0, "ours"), (1, "other")):
        run_experiment(config(seed), scratch / f"finished-{name}")
        stopped_run(scratch / f"stopped-{name}", seed)
    states["finished"] = scratch / "finished-ours", scratch / "finished-other"
    states["stopped"] = scratch / "stopped-ours", scratch / "stopped-other"
    counts: dict[str, collections.Counter[str]] = {}
    bad = []
    for state, (ours, other) in states.items():
        files = sorted(path for path in ours.rglob("*") if path.is_file() and path.name != ".lock")
        tries = []
        for path, (damage, change) in itertools.product(files, DAMAGES.items()):
            name, before = path.relative_to(ours), path.read_bytes()
            theirs = other / name
            after = change(before, theirs.read_bytes() if theirs.is_file() else before)
            if after != before:
                tries.append((name, damage, after))
        print(f"{state}: {len(files)} files, {len(tries)} damages")
        chosen = range(len(tries))
        if most is not None and most < len(tries):
            chosen = [number * len(tries) // most for number in range(most)]
        for name, damage, after in (tries[number] for number in chosen):
            folder = scratch / "damaged"
            shutil.copytree(ours, folder)
            (folder / name).write_bytes(after)
            outcome, line = outcome_of(folder, wanted)
            counts.setdefault(f"{state}, {damage}", collections.Counter())[outcome] += 1
            print(f"{state}/{name} {damage}: {outcome} {line}", flush=True)
            if outcome in ("raw error", "another end"):
                bad.append({"file": str(name), "state": state, "damage": damage, "error": line})
            shutil.rmtree(folder)
    return {"counts": counts, "bad": bad}


def main() -> None:
    """Runs both and writes what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--damages", type=int, default=None, help="of each run; default: all")
    parser.add_argument("--output", type=Path, default=Path("reliability.json"))
    parser.add_argument("--scratch", type=Path, default=None, help="a folder that isn't there yet")
    options = parser.parse_args()
    logging.getLogger("kd_jax").setLevel(logging.CRITICAL)
    scratch = options.scratch or Path(tempfile.mkdtemp(prefix="kd_jax-reliability-"))
    began = time.perf_counter()
    found: dict[str, Any] = (
        {"kills": kill_at_renames(scratch, options.kills)} if options.kills else {}
    )
    from kd_jax.experiments.run import run_experiment

    wanted = fingerprints(run_experiment(config(), scratch / "alone"))
    found["damage"] = damage_every_file(scratch, wanted, options.damages)
    found["seconds"] = round(time.perf_counter() - began)
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]), after=sys.argv[4] == "1")
    else:
        main()
