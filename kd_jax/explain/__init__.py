"""What a finished run rests on: members, parts of examples, features, terms and sources of a
  student's training.

Each call adds its sections to `RUN/explain/explain.json`, prints them as tables and draws them
beside it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_jax.core.json_files import read_facts, write_json
from kd_jax.explain import report
from kd_jax.explain.attributions import attribute_examples
from kd_jax.explain.features import value_features
from kd_jax.explain.pieces_of_training import PIECES
from kd_jax.explain.retrain_subsets import value_training
from kd_jax.explain.run import ONE_DEVICE, Run, open_run

log = logging.getLogger("kd_jax")

EXAMPLES = 8
PERMUTATIONS = 64
"""Orders of joining for each example, where the caller doesn't say."""


def explain_members(
    workdir: Path, model: str | None, examples: int | None, permutations: int | None
) -> Path:
    """Explains what an ensemble's members are worth, and which parts of examples models rest on.

    Args:
      workdir: of a finished run.
      model: whom to set beside the compared teacher; None: the compared student.
      examples: how many of the evaluation split's first; None: 8.
      permutations: to sample for each example; None: 64.

    Returns:
      The folder that holds explain.json, and a picture for each ensemble and example.

    Raises:
      ValueError: in one line, if the run isn't finished, or something asked for doesn't exist.
    """
    # Asking needs one device only, also where the run was trained on many.
    run = open_run(workdir, ONE_DEVICE)
    # The run has valued the members of its ensembles already; here they are only shown.
    ensembles = {
        name: entry["shapley"]
        for name, entry in run.results["models"].items()
        if "shapley" in entry
    }
    found = attribute_examples(
        run,
        run.choose(model),
        EXAMPLES if examples is None else examples,
        PERMUTATIONS if permutations is None else permutations,
    )
    plots = []
    for name, worths in ensembles.items():
        title = f"what the members of {name} are worth"
        report.show_worths(worths, title)
        plots.append(report.plot_worths(worths, title, run.folder / f"members_{name}.png"))
    report.show_attributions(found)
    plots += report.plot_attributions(found, run)
    return _keep(run, {"members": ensembles, "attributions": found}, plots)


def explain_features(
    workdir: Path, model: str | None, blocks: int | None, permutations: int | None
) -> Path:
    """Explains what the features' dimensions are worth to teacher and student, block by block.

    Args:
      workdir: of a finished run.
      model: whom to set beside the compared teacher; None: the compared student.
      blocks: of neighbouring dimensions; None: 8, or as many as there are dimensions.
      permutations: to sample; None: exact values, of up to 16 blocks.

    Returns:
      The folder that holds explain.json, and a picture for each model.

    Raises:
      ValueError: in one line, if the run isn't finished, or something asked for doesn't exist.
    """
    run, plots = open_run(workdir, ONE_DEVICE), []
    found = value_features(run, run.choose(model), blocks, permutations)
    for name, worths in found.items():
        title = f"what the features of {name} are worth"
        report.show_worths(worths, title)
        plots.append(report.plot_worths(worths, title, run.folder / f"features_{name}.png"))
    return _keep(run, {"features": found}, plots)


def explain_training(workdir: Path, model: str | None, kind: str, permutations: int | None) -> Path:
    """Explains what the terms of a model's objective, or its training data's sources, are worth.

    Args:
      workdir: of a finished run.
      model: the model; None: the compared student.
      kind: of `kd_jax.explain.pieces_of_training.PIECES`.
      permutations: to sample; None: exact values, of up to 6 players.

    Returns:
      The folder that holds explain.json, a picture, and the models that were trained for it.

    Raises:
      ValueError: in one line, if the run isn't finished, or something asked for doesn't exist.
      Interrupted: after SIGTERM; the same call goes on.
    """
    # Subsets are trained on the devices that the config names, as the whole was.
    run = open_run(workdir)
    name = run.choose(model)
    found = value_training(run, name, PIECES[kind](run.plan.config, name), permutations)
    title = f"what the {kind} of {name} are worth"
    report.show_worths(found, title)
    return _keep(run, {kind: found}, [report.plot_worths(found, title, run.folder / f"{kind}.png")])


def _keep(run: Run, sections: Mapping[str, Any], plots: list[str]) -> Path:
    """Sets sections of explain.json; those of other calls stay."""
    # Sections of earlier calls are read first, because the file is written as a whole.
    file = run.folder / "explain.json"
    before = read_facts(file, (), "sections of earlier calls are left out")
    write_json(file, {"experiment": run.results["experiment"], **(before or {}), **sections})
    log.info("%s and %s are in %s", file.name, ", ".join(plots), run.folder)
    return run.folder
