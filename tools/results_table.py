"""Records results of runs in results/, and writes their table into docs/results.md.

uv run tools/results_table.py [--check]              the table, from results/*/*.json
uv run tools/results_table.py --record FOLDER NAME   a run's, or all of a sweep's, as results/NAME/
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_jax.analysis.intervals import over_seeds
from kd_jax.core import seal
from kd_jax.core.json_files import write_json
from kd_jax.tasks import METRICS, cell, header

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
FILE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- recorded -->", "<!-- end of recorded -->"


def record(folder: Path, name: str) -> list[Path]:
    """Copies the results.json of a run, or of each run of a sweep, into results/NAME.

    Folders of this machine become their last part, as a path that another one has.

    Raises:
      ValueError: if nothing there is finished, or it is more than one setting.
    """
    if (folder / "search.json").is_file():
        raise ValueError(f"{folder} is a search, whose runs chose its settings: record other seeds")
    found = sorted([*folder.glob("results.json"), *folder.glob("*/results.json")])
    if not found:
        raise ValueError(f"{folder} holds no results.json, and no folder in it does")
    written, seen = [], []
    for file in found:
        results = json.loads(file.read_text(encoding="utf-8"))
        if problem := seal.problem(file.parent, file.name, results):
            raise ValueError(f"{file}: {problem}")
        setting = file.parent.name if file.parent != folder else f"seed{results['seed']}"
        if any(folder != file.parent and other["seed"] == results["seed"] for other in seen):
            raise ValueError(f"{folder} has more than one setting; record a sweep of each")
        seen.append(results)
        target = RESULTS / name / f"{setting}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        rest = {key: value for key, value in results.items() if key != seal.KEY}
        write_json(target, seal.seal(_portable(rest)))
        written.append(target)
    return written


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_portable(key): _portable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_portable(each) for each in value]
    if isinstance(value, str) and value.startswith("/"):
        # A file lies in its dataset's folder, and a model in its run's.
        path = Path(value)
        inner = path.suffix or path.parent.name.startswith("seed")
        return str(Path(*path.parts[-2 if inner else -1 :]))
    return value


def table(folder: Path = RESULTS) -> str:
    """Returns Markdown: a row for each folder of results, over its seeds."""
    rows = [
        "| results/ | metric | seeds | teacher | baseline | student | gain, 95 % interval | of |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(each.glob("*.json"))
        rows.append(_row(each.name, [json.loads(f.read_text(encoding="utf-8")) for f in files]))
    return "\n".join(rows)


def _row(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    primary, roles = runs[0]["primary"], runs[0]["compare"]
    values: dict[str, list[float]] = {}
    for role in ("teacher", "baseline", "student"):
        entries = [run["models"][roles[role]] for run in runs]
        # A teacher that seeds share is one model.
        known = {entry["fingerprint"]: entry["metrics"][primary] for entry in entries}
        values[role] = [value for value in known.values() if value is not None]
    shown = {role: _spread(each, primary) for role, each in values.items()}
    commits = sorted({run["environment"]["commit"][:7] for run in runs})
    return (
        f"| `{name}` | {header(primary)} | {len(runs)} | {shown['teacher']} | {shown['baseline']}"
        f" | {shown['student']} | {_gain(runs, primary)} | {', '.join(commits)} |"
    )


def _spread(values: Sequence[float], metric: str) -> str:
    if not values:
        return "-"
    told = cell(metric, statistics.fmean(values))
    return told if len(values) == 1 else f"{told} ± {cell(metric, statistics.stdev(values))}"


def _gain(runs: Sequence[Mapping[str, Any]], metric: str) -> str:
    gains = [run["gain"] for run in runs if run["gain"] is not None]
    if len(gains) < len(runs):
        return f"undefined in {len(runs) - len(gains)}"
    factor = 100 if METRICS[metric].share else 1
    told = f"{factor * statistics.fmean(gains):+.2f}"
    found = over_seeds(gains)
    interval = runs[0]["gain_interval"] if found is None else (found.low, found.high)
    if interval is None:
        return told
    low, high = (factor * bound for bound in interval)
    over = "rows" if found is None else "seeds"
    verdict = "a gain" if low > 0 else "a loss" if high < 0 else "not shown"
    return f"{told}, {low:.2f} to {high:.2f} over {over}: {verdict}"


def page() -> str:
    """Returns docs/results.md with the table of today's results/.

    Raises:
      ValueError: if the page has no place for it.
    """
    text = FILE.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{FILE} must have one {BEGIN} and one {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Records, writes the page, or, with --check, fails if it isn't up to date."""
    if sys.argv[1:2] == ["--record"]:
        if len(sys.argv) != 4:
            sys.exit(__doc__)
        for file in record(Path(sys.argv[2]), sys.argv[3]):
            print(file.relative_to(ROOT))
        return
    if "--check" in sys.argv[1:]:
        if page() != FILE.read_text(encoding="utf-8"):
            sys.exit("docs/results.md is not of today's results/: run tools/results_table.py")
        return
    FILE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
