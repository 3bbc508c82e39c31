r"""Kills a run with SIGKILL repeatedly, resumes it each time, and compares its final results.

  uv run benchmarks/interruptions.py --config=configs/digits.py --kills=10 --seed=0 [-- overrides of
  the config]

Each kill waits for a phase (data preparation, inside a save, between the first checkpoint and the
end, between two models, anywhere), strikes after a random pause and records the phase that the
files show at that moment. The fingerprints of all models must then be those of a run that was not
interrupted. Prints a table; exit status 1 if any differs.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAN = (
    "preparation",
    "training",
    "save",
    "training",
    "between",
    "save",
    "training",
    "anywhere",
    "save",
    "training",
)
"""Phases that the kills wait for, in turn.

"training" is between the first checkpoint and the end, outside a save.
"""


def models_of(workdir: Path) -> list[Path]:
    return [folder for folder in workdir.glob("*/") if (folder / "checkpoints").is_dir()]


def phase_of(workdir: Path, data: Path) -> str:
    """Tells from the files what the run is doing.

    Files that a killed save left behind are removed when the run starts again.
    """
    if not any(data.glob("*/*/1.0.0")):
        return "preparation" if any(data.rglob("*preparing*")) else "start"
    folders = models_of(workdir)
    # Orbax writes a checkpoint under a temporary name and renames it: the name exists during a
    # save.
    if any(True for folder in folders for _ in folder.glob("checkpoints/*orbax-checkpoint-tmp*")):
        return "save"
    if not folders:
        return "start"
    running = [folder for folder in folders if not (folder / "finished.json").exists()]
    if not running:
        return "between"
    has_checkpoint = any(path.name.isdigit() for path in running[0].glob("checkpoints/*"))
    return "training" if has_checkpoint else "before the first checkpoint"


def fingerprints(workdir: Path) -> dict[str, str]:
    results = json.loads((workdir / "results.json").read_text())
    return {name: model["fingerprint"] for name, model in results["models"].items()}


def start(arguments, workdir: Path, data: Path, log) -> subprocess.Popen:
    command = [
        sys.executable,
        "launch.py",
        f"--config={arguments.config}",
        f"--workdir={workdir}",
        *arguments.overrides,
    ]
    environment = os.environ | {"TFDS_DATA_DIR": str(data)}
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def strike(
    process: subprocess.Popen,
    wanted: str,
    workdir: Path,
    data: Path,
    rng: random.Random,
    since: float,
) -> str | None:
    """Waits for a phase, then a moment, then kills the run.

    Returns:
      The phase at the kill, or None if the run ended first.
    """
    anywhere = time.monotonic() + rng.uniform(0.5, 15)
    while process.poll() is None:
        phase = phase_of(workdir, data)
        # A resumed process shows the old files until it has logged a step of its own.
        record = workdir / "metrics.jsonl"
        began_here = (
            record.exists() and record.stat().st_mtime > since
            if wanted == "training"
            else (workdir.exists() and time.time() - since > 3)
        )
        if (wanted == "anywhere" and time.monotonic() > anywhere) or (
            phase == wanted and began_here
        ):
            pauses = {"save": 0.01, "between": 0.05, "preparation": 5.0, "training": 1.0}
            time.sleep(rng.uniform(0, pauses.get(wanted, 0)))
            phase = phase_of(workdir, data)
            # The phase may have passed during the pause; then the kill waits for the next one.
            if wanted != "anywhere" and phase != wanted:
                continue
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return phase
        # A save lasts a few milliseconds, so a longer pause would miss it.
        time.sleep(0.0005)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    rng, home = random.Random(arguments.seed), Path(tempfile.mkdtemp(prefix="interruptions-"))
    log = (home / "log.txt").open("w")
    began = time.monotonic()
    if start(arguments, home / "alone", home / "data", log).wait() != 0:
        sys.exit(f"the run left alone failed; see {home}/log.txt")
    expected = fingerprints(home / "alone")
    print(f"left alone: {time.monotonic() - began:.0f} s", flush=True)
    phases, runs, plan = collections.Counter(), 0, collections.deque(PLAN)
    matches = True
    while sum(phases.values()) < arguments.kills:
        runs += 1
        workdir, data = home / f"killed-{runs}", home / f"data-{runs}"
        finished = False
        while not finished:
            # After the last kill the run is left to end, so that its results can be compared.
            more = sum(phases.values()) < arguments.kills
            process, since = start(arguments, workdir, data, log), time.time()
            phase = strike(process, plan[0], workdir, data, rng, since) if more else None
            if phase is None:
                finished = process.wait() == 0
                if not finished:
                    sys.exit(
                        f"a resumed run failed with status {process.returncode}; see {home}/log.txt"
                    )
            else:
                phases[phase] += 1
                plan.rotate(-1)
                print(f"kill {sum(phases.values())}: {phase} (waited for {plan[-1]})", flush=True)
        same = fingerprints(workdir) == expected
        matches &= same
        if more:
            # The phase didn't come before the run ended; the next run waits for another one.
            plan.rotate(-1)
        print(
            f"run {runs}: fingerprints"
            f" {'equal' if same else f'DIFFER: {fingerprints(workdir)} {expected}'}",
            flush=True,
        )
    print(dict(phases))
    print("all equal" if matches else "some differ")
    if matches:
        shutil.rmtree(home)
    sys.exit(0 if matches else 1)


if __name__ == "__main__":
    main()
