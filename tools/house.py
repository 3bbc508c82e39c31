"""Measures how easy kd_jax is to enter: frames to the loss, comments, widths, rooms, config lines.

uv run tools/house.py            prints a Markdown table
"""

import ast
import io
import os
import re
import statistics
import sys
import tempfile
import tokenize
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kd_jax"
FILES = sorted(PACKAGE.rglob("*.py"))


def comments_per_100_lines() -> float:
    """Counts lines that only comment, beside lines of code; docstrings are neither."""
    comments = code = 0
    for file in FILES:
        for line in _without_docstrings(file):
            stripped = line.strip()
            comments += stripped.startswith("#")
            code += bool(stripped) and not stripped.startswith("#")
    return 100 * comments / code


def _without_docstrings(file: Path) -> list[str]:
    text = file.read_text()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return [line for i, line in enumerate(text.splitlines(), 1) if i not in skipped]


def wide_lines() -> float:
    """Returns the share of lines wider than 100 columns, in percent; addresses can't be broken."""
    lines = [line for file in FILES for line in file.read_text().splitlines()]
    lines = [line for line in lines if "<https://" not in line]
    return 100 * sum(len(line) > 100 for line in lines) / len(lines)


def formatting_switched_off() -> int:
    """Counts comments that switch the formatter off."""
    count = 0
    for file in (*FILES, *(ROOT / "configs").glob("*.py"), *(ROOT / "tests").rglob("*.py")):
        tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
        comments = (token.string for token in tokens if token.type == tokenize.COMMENT)
        count += sum(bool(re.search(r"fmt:\s*(skip|off)", comment)) for comment in comments)
    return count


def config_lines() -> dict[str, int]:
    """Returns the lines of code of every config, docstrings and comments left out."""
    found = {}
    for file in sorted((ROOT / "configs").glob("*.py")):
        lines = (line.strip() for line in _without_docstrings(file))
        found[file.stem] = sum(bool(line) and not line.startswith("#") for line in lines)
    return found


def rooms() -> dict[str, set[str]]:
    """Returns every room, a top-level package or module, and the rooms that it imports."""
    graph: dict[str, set[str]] = {}
    for file in FILES:
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue  # The public face names everything, lazily.
        graph.setdefault(room, set())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kd_jax"):
                parts = (node.module or "").split(".")
                names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
                graph[room] |= {name for name in names if name != room}
    return graph


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Returns pairs of rooms that reach each other."""
    reached = {room: _reachable(graph, room) for room in graph}
    return sorted(
        f"{one} <-> {other}"
        for one in graph
        for other in graph
        if one < other and other in reached[one] and one in reached[other]
    )


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for room in graph.get(waiting.pop(), ()):
            if room not in found:
                found.add(room)
                waiting.append(room)
    return found


def floors(graph: dict[str, set[str]]) -> int:
    """Returns the longest chain of rooms that import each other; 0 if there are circles."""
    if circles(graph):
        return 0
    depth: dict[str, int] = {}

    def measure(room: str) -> int:
        if room not in depth:
            depth[room] = 1 + max((measure(each) for each in graph.get(room, ())), default=0)
        return depth[room]

    return max(map(measure, graph))


def frames_to_the_loss() -> int:
    """Counts frames of kd_jax between `run_experiment` and a loss that the training step calls."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from kd_jax import losses
    from kd_jax.config.load import load_config, plain
    from kd_jax.experiments.run import run_experiment
    from kd_jax.objective.terms.logits import SoftTargetKL

    class Reached(Exception):
        pass

    def stop(*arguments: Any, **options: Any) -> Any:
        names = {frame.name for frame in traceback.extract_stack()}
        if "train_step" in names:
            raise Reached
        return losses.soft_target_kl(*arguments, **options)

    stop.__signature__ = __import__("inspect").signature(losses.soft_target_kl)
    original = SoftTargetKL.__dict__["loss"]
    SoftTargetKL.loss = staticmethod(stop)
    config = load_config("digits", smoke=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_experiment(plain(config), folder)
    except Reached as reached:
        files = [frame.filename for frame in traceback.extract_tb(reached.__traceback__)]
        # The replaced loss stands where the loss itself would.
        return sum(str(PACKAGE) in file for file in files) + 1
    finally:
        SoftTargetKL.loss = original
    raise AssertionError("the step never called the loss")


def table(frames: int | None) -> str:
    """Returns the measures as Markdown, beside their goals."""
    graph, lines = rooms(), config_lines()
    others = [count for name, count in lines.items() if name != "cifar10_resnet56"]
    rows = [
        ("frames from the entry to the loss", frames, "<= 9"),
        ("comments per 100 code lines", f"{comments_per_100_lines():.1f}", "about 8"),
        ("lines wider than 100 columns, %", f"{wide_lines():.1f}", "0"),
        ("formatting switched off", formatting_switched_off(), "0"),
        ("README, KB", f"{(ROOT / 'README.md').stat().st_size / 1000:.1f}", "< 7"),
        ("code lines of a config, median", statistics.median(lines.values()), "<= 20"),
        ("the longest, cifar10_resnet56 left out", max(others), "<= 45"),
        ("rooms at the top", len(graph), "<= 16"),
        ("floors", floors(graph), "<= 9"),
        ("circles", len(circles(graph)), "0"),
    ]
    head = ["| | now | goal |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {name} | {value} | {goal} |" for name, value, goal in rows)])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    print(table(frames_to_the_loss()))
    for circle in circles(rooms()):
        print(circle)
