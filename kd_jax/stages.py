"""What comes after training: stages of a finished run, which read its folder and no config."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from kd_jax.export import export as write_export
from kd_jax.export import predict as prediction


def export(workdir: Path, model: str | None, formats: Sequence[str]) -> int:
    """Exports a model of a run and says where to; the exit status."""
    print(f"exported: {write_export(workdir, model, formats)}")
    return 0


def predict(workdir: Path, model: str | None, source: str | None, output: str) -> int:
    """Predicts a file or folder to a file, or to stdout for "-"; the exit status."""
    if source is None:
        raise ValueError("--stage=predict needs --input, a file or a folder of images")
    with contextlib.ExitStack() as stack:
        stream = (
            sys.stdout
            if output == "-"
            else stack.enter_context(Path(output).open("w", encoding="utf-8"))
        )
        counts = prediction.predict(workdir, Path(source), stream, model)
    print(f"{counts['predicted']} predicted, {counts['unreadable']} unreadable", file=sys.stderr)
    return 0


def explain(
    workdir: Path,
    model: str | None,
    players: str,
    examples: int | None,
    blocks: int | None,
    permutations: int | None,
) -> int:
    """Explains a run, or a model of it, and says where to; the exit status."""
    from kd_jax import explain as explanation

    if blocks is not None and players != "features":
        raise ValueError(f"--blocks are of features, with --players=features, not {players}")
    if players == "members":
        folder = explanation.explain_members(workdir, model, examples, permutations)
    elif examples is not None:
        raise ValueError(
            f"--examples are explained by their parts, with --players=members, not {players}"
        )
    elif players == "features":
        folder = explanation.explain_features(workdir, model, blocks, permutations)
    else:
        folder = explanation.explain_training(workdir, model, players, permutations)
    print(f"explained: {folder}")
    return 0
