r"""What a trusted set finds and is worth where one label in ten is wrong: configs/digits_trusted.py
on flipped digits.

  uv run benchmarks/trusted_sets.py [--seeds=3] [--workdir=runs/flipped]

A tenth of the labels of the training images of scikit-learn's digits, those that select checkpoints
included, are flipped to another class at random; the test images keep theirs. The config runs as it
is, once with confident learning choosing how many labels are doubted and once with a tenth of them.
Each seed flips other labels and seeds all models."""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from kd_jax.config.load import load_config, plain
from kd_jax.data.open import open_source
from kd_jax.experiments.run import run_experiment

CONFIG = Path(__file__).parents[1] / "configs" / "digits_trusted.py"
FLIPPED = 0.1
DOUBTS = {"as many as picked": None, "a tenth": FLIPPED}


def write_digits(folder: Path, seed: int) -> None:
    """Pictures by split and class; those of flipped labels are called so, which nobody but
    `is_flipped` reads."""
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        source = open_source(
            "digits", split, dir=None, inputs="image", label="label", max_rejected=0
        )
        labels, wrong = np.array(source.labels), np.zeros(len(source), bool)
        if split == "train":
            wrong[rng.choice(len(labels), round(FLIPPED * len(labels)), replace=False)] = True
            labels = np.where(wrong, (labels + rng.integers(1, 10, len(labels))) % 10, labels)
        for number, image in enumerate(np.asarray(source.inputs)):
            home = folder / split / source.class_names[labels[number]]
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(
                home / f"{number:04d}{'_flipped' if wrong[number] else ''}.png"
            )


def flipped_rows(folder: Path) -> set[int]:
    """The row numbers of flipped labels: positions among the sorted files, from 1."""
    files = sorted((folder / "train").glob("*/*.png"))
    return {row for row, path in enumerate(files, start=1) if "flipped" in path.name}


def run(folder: Path, seed: int, label_share: float | None, workdir: Path) -> dict[str, float]:
    """Percentages: precision and recall among the rows that models learn from, and each model's
    test accuracy."""
    config = load_config(str(CONFIG))
    config.seed, config.data.name = seed, str(folder)
    config.data.cleaning.mode = "report"
    config.trusted_sets.trusted.label_share = label_share
    results = run_experiment(plain(config), workdir)
    entries = [json.loads(line) for line in (workdir / "quarantine.jsonl").read_text().splitlines()]
    doubted = {entry["row"] for entry in entries if "label_error" in entry["reasons"]}
    source = open_source(
        str(folder), config.data.train, dir=None, inputs="image", label="label", max_rejected=0
    )
    wrong = flipped_rows(folder) & {int(row) for row in source.rows}
    hits = len(doubted & wrong)
    found = {"precision": hits / len(doubted), "recall": hits / len(wrong)}
    found |= {name: entry["accuracy"] for name, entry in results["models"].items()}
    return {name: 100 * value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("runs/flipped"))
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in DOUBTS}
    for seed in range(options.seeds):
        folder = options.workdir / f"pictures{seed}"
        if not folder.exists():
            write_digits(folder, seed)
        for kind, label_share in DOUBTS.items():
            workdir = options.workdir / f"{kind.replace(' ', '_')}-seed{seed}"
            found[kind].append(run(folder, seed, label_share, workdir))
    print(
        f"{f'mean ± standard deviation of {options.seeds} seeds, %':44}",
        *(f"{kind:>18}" for kind in DOUBTS),
    )
    for name in found["a tenth"][0]:
        columns = [np.array([each[name] for each in found[kind]]) for kind in DOUBTS]
        print(
            f"{name:44}",
            *(
                f"{f'{values.mean():.2f} ± {values.std(ddof=min(1, len(values) - 1)):.2f}':>18}"
                for values in columns
            ),
        )


if __name__ == "__main__":
    main()
