"""Processes that are killed while a teacher's outputs are computed, and what the next one finds."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.soak

KILLS = 20
# Slowed down, so that a kill can hit any batch and any file; files of few rows, so that there are
# more of them than kills.
TEACH = """
import sys, time
from pathlib import Path
from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment
from kd_jax.teachers import kept_outputs

def slowly(*given):
    for rows in ask(*given):
        time.sleep(0.1)
        yield rows

if __name__ == "__main__":
    ask, kept_outputs.ask, kept_outputs.ROWS = kept_outputs.ask, slowly, 32
    config = plain(load_config("digits", smoke=True))
    config["data"]["train"] = "train"
    config["models"]["student"]["cached"] = ("teacher",)
    run_experiment(config, Path(sys.argv[1]), teach=True)
"""


def start(script, workdir, log):
    return subprocess.Popen(
        [sys.executable, str(script), str(workdir)], stdout=log, stderr=log, env=os.environ
    )


def files(workdir):
    return {path.name: path for path in workdir.glob("teacher/outputs-*/rows-*.safetensors")}


def test_whole_files_are_gone_on_with_after_twenty_kills(tmp_path):
    script, rng = tmp_path / "teach.py", random.Random(0)
    script.write_text(TEACH)
    with (tmp_path / "log.txt").open("w") as log:
        assert start(script, tmp_path / "alone", log).wait() == 0, (
            tmp_path / "log.txt"
        ).read_text()
        killed, written = 0, {}
        while killed < KILLS:
            process, before = (
                start(script, tmp_path / "killed", log),
                len(files(tmp_path / "killed")),
            )
            # The first file of this process, or none yet, and somewhere within the next one.
            wanted = before + rng.randint(0, 1)
            while process.poll() is None and (
                len(files(tmp_path / "killed")) < wanted
                or not (tmp_path / "killed" / "teacher" / "finished.json").exists()
            ):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3 if wanted > before else 3))
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            # What was whole at an earlier kill is not written again.
            now = {
                name: file.stat().st_mtime_ns for name, file in files(tmp_path / "killed").items()
            }
            assert written.items() <= now.items()
            written = now
        assert 0 < len(written) < len(files(tmp_path / "alone"))
        assert start(script, tmp_path / "killed", log).wait() == 0, (
            tmp_path / "log.txt"
        ).read_text()
    alone, together = files(tmp_path / "alone"), files(tmp_path / "killed")
    assert alone.keys() == together.keys()
    for name in alone:
        # Not byte by byte: a file's description stands in it in any order.
        one, other = load_file(alone[name]), load_file(together[name])
        assert {key: value.tobytes() for key, value in one.items()} == {
            key: value.tobytes() for key, value in other.items()
        }
    kept = {name: file.stat().st_mtime_ns for name, file in together.items()}
    assert written.items() <= kept.items()
