"""The examples of the docs run as they stand."""

import re
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

DOCS = ROOT / "docs"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def code_lines(block):
    return [line for line in block.splitlines() if line.strip()]


def test_the_first_script_is_short():
    script = next(block for block in blocks("quickstart.md") if "kd.distill(" in block)
    assert len(code_lines(script)) <= 15
    config = next(block for block in blocks("own-data.md") if "get_config" in block)
    assert len(code_lines(config)) <= 15


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path):
    script = "\n".join(blocks("quickstart.md"))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(2, 10)" in done.stdout


@pytest.mark.slow
def test_a_config_for_a_table_of_two_text_columns_runs(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array(["red", "blue", "green", "big", "small", "old", "new", "good", "bad"])
    rows = ["question,answer,label"]
    for _ in range(240):
        question, answer = (" ".join(rng.choice(words, 5)) for _ in range(2))
        rows.append(f"{question},{answer},{'same' if question[0] == answer[0] else 'other'}")
    (tmp_path / "questions.csv").write_text("\n".join(rows) + "\n")
    config = next(block for block in blocks("own-data.md") if "get_config" in block)
    (tmp_path / "questions.py").write_text(config)
    command = [sys.executable, "-m", "kd_jax.cli", "--config=questions.py", "--workdir=run"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").is_file()
