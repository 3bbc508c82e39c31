"""Compares what a model that was trained elsewhere reads with what the run gives it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_jax.config.schema import EMBEDDINGS, ModelPlan
from kd_jax.core.json_files import as_json
from kd_jax.data.views.tokenizer_identity import difference_to_folder
from kd_jax.models.weights import files
from kd_jax.training.context import RunContext

log = logging.getLogger("kd_jax")


def check_inputs(plan: ModelPlan, folder: Path, context: RunContext) -> None:
    """Refuses a view that gives a model other inputs than it was trained on.

    Args:
      plan: the model's section.
      folder: what its weights came from; a file has nothing to compare with.
      context: of the run.

    Raises:
      ValueError: if the view's tokenizer isn't the folder's.
    """
    if "tokenizer" in plan.view:
        # Of word embeddings alone, rows are picked where the view's vocabulary is cut.
        ours = context.datasets.tokenizer(plan.view)
        if EMBEDDINGS in plan.model:
            ours, _ = context.datasets.cut_from(plan.view)
        # Equal sizes fit any vocabulary of that size, and no shape would tell.
        if found := difference_to_folder(ours, folder):
            raise ValueError(
                f"models.{plan.name}: its view's tokenizer {plan.view['tokenizer']!r} is not the"
                f" one in {folder}, which its weights were trained with: {found}; say"
                f" view.tokenizer={str(folder)!r}"
            )
    elif (folder / "preprocessor_config.json").is_file():
        _compare_images(plan, folder / "preprocessor_config.json")


def _compare_images(plan: ModelPlan, path: Path) -> None:
    """Warns of another normalization or size than a published folder's."""
    theirs = files.read_json(path)
    asked: dict[str, tuple[Any, Any]] = {}
    for key, name in (("mean", "image_mean"), ("std", "image_std")):
        if name in theirs and theirs.get("do_normalize", True):
            asked[key] = (as_json(plan.view[key]), theirs[name])
    if theirs.get("do_resize", True) and (size := _size(theirs.get("size"))) is not None:
        asked["size"] = (as_json(plan.view["size"]), size)
    differing = {key: pair for key, pair in asked.items() if not _equal(*pair)}
    if differing:
        told = "; ".join(
            f"view.{key} {ours}, there {its}" for key, (ours, its) in differing.items()
        )
        # A size of one's own is often meant, so this is no error.
        log.warning("%s: its images are not prepared as %s says: %s", plan.name, path, told)


def _size(given: Any) -> list[int] | None:
    """Returns height and width; None where the folder crops or fixes no size."""
    if isinstance(given, int):
        return [given, given]
    if isinstance(given, Mapping) and given.keys() >= {"height", "width"}:
        return [given["height"], given["width"]]
    return None


def _equal(ours: Any, theirs: Any) -> bool:
    """Tells whether numbers agree; one number stands for each of several channels."""
    if not isinstance(ours, list) or not isinstance(theirs, list):
        return ours == theirs
    length = max(len(ours), len(theirs))
    spread = [each * length if len(each) == 1 else each for each in (ours, theirs)]
    return len(spread[0]) == len(spread[1]) and all(
        abs(a - b) < 1e-4 for a, b in zip(*spread, strict=True)
    )
