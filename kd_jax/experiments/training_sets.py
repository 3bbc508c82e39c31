"""The transfer sets and trusted sets that a run's models learn from: made in their turn, or opened
again."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kd_jax.config.names import LABELLED, TRAIN, TRANSFER, TRUSTED
from kd_jax.config.schema import Plan
from kd_jax.core.json_files import write_rows
from kd_jax.data.run_datasets import Datasets
from kd_jax.experiments.filtered_sets import make as trusted
from kd_jax.experiments.transfer_sets import make as transfer
from kd_jax.experiments.transfer_sets.generate import check_candidates
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")


class TrainingSets:
    """Makes each set once, when the first model asks for it.

    Attributes:
      facts: "transfer_sets" or "trusted_sets" -> name -> what the set was made of, as in
        results.json.
    """

    def __init__(self, plan: Plan, context: RunContext):
        self._plan, self._context = plan, context
        self.facts: dict[str, dict[str, Any]] = {TRANSFER: {}, TRUSTED: {}}

    def make(self, names: Iterable[str], models: Mapping[str, TrainedModel]) -> None:
        """Makes those that aren't there yet, of finished `models`; names of nothing that is made
        are passed over."""
        # The facts tell what is made already, so a set that several models name is made once.
        for name in names:
            if name in self._plan.transfer_sets and name not in self.facts[TRANSFER]:
                self._make_transfer_set(name, models)
            if name in self._plan.trusted_sets and name not in self.facts[TRUSTED]:
                self._make_trusted_set(name, models)

    def make_the_rest(self, models: Mapping[str, TrainedModel]) -> None:
        """Judges the rows of trusted sets that no model learns from; says which transfer sets
        nobody asked for."""
        # A set that only reports is often named by no model, and its report is still wanted.
        self.make(self._plan.trusted_sets, models)
        for name in sorted(self._plan.transfer_sets.keys() - self.facts[TRANSFER].keys()):
            log.warning("%s.%s is named by no model's data, and isn't made", TRANSFER, name)

    def _make_transfer_set(self, name: str, models: Mapping[str, TrainedModel]) -> None:
        spec, context = self._plan.transfer_sets[name], self._context
        # The base comes first, as the new inputs grow from its rows.
        self.make((spec.get("base", TRAIN),), models)
        # Outputs are kept only where a student reads them from a table; features can be large.
        cached = any(
            name in model.data and spec["teacher"] in model.cached for model in self._plan.models
        )
        made = transfer.make(name, spec, models[spec["teacher"]], context, keep_outputs=cached)
        context.datasets.add_set(name, made.source)
        self.facts[TRANSFER][name] = made.provenance

    def _make_trusted_set(self, name: str, models: Mapping[str, TrainedModel]) -> None:
        spec, context = self._plan.trusted_sets[name], self._context
        made = trusted.make(name, spec, models[spec["judge"]], context)
        context.datasets.add_set(name, made.source, made.quarantined)
        # Rows that the judge doubts join those that cleaning has set aside.
        write_rows(context.workdir / "quarantine.jsonl", context.datasets.quarantined())
        self.facts[TRUSTED][name] = made.facts


def check_data(plan: Plan, datasets: Datasets, workdir: Path) -> None:
    """Refuses, before anything is trained, what the training rows rule out.

    Args:
      plan: of the run.
      datasets: opened.
      workdir: the run's folder; sets that were made there by an earlier start need no source.

    Raises:
      ValueError: naming the set.
    """
    train = datasets.splits["train"]
    rows = len(train)
    # The evaluation's batches have the size of the config's own section.
    sizes = {"training.batch_size": plan.config["training"]["batch_size"]}
    sizes |= {
        f"models.{model.name}.training.batch_size": model.training["batch_size"]
        for model in plan.models
        if model.objective and model.data == (TRAIN,)
    }
    for key, size in sizes.items():
        if size > rows:
            raise ValueError(f"{key} {size} is more than the {rows} training rows")
    for model in plan.models:
        size, found = model.training.get("batch_size", 0), int(train.labelled.sum())
        if model.objective and model.data == (LABELLED,) and size > found:
            raise ValueError(
                f"models.{model.name}.training.batch_size {size} is more than the {found} training"
                " rows with a label"
            )
    # Known as soon as the data is open, but needed only after the judge has trained.
    for name, spec in plan.trusted_sets.items():
        if spec["folds"] > rows:
            raise ValueError(
                f"{TRUSTED}.{name}: folds {spec['folds']} are more than the {rows} training rows"
            )
    for name, spec in plan.transfer_sets.items():
        if transfer.is_made(workdir, name):
            continue
        try:
            transfer.check_restored(spec)
            if spec.get("restore") is not None:
                continue
            check_candidates(spec["source"], train, datasets.task)
        except ValueError as error:
            raise ValueError(f"{TRANSFER}.{name}: {error}") from None


def reopen(plan: Plan, datasets: Datasets, workdir: Path) -> None:
    """Makes known what the models of a finished run learned from.

    Raises:
      ValueError: if one of the sets isn't whole in the run's folder.
    """
    train = datasets.splits["train"]
    for name in {name for model in plan.models for name in model.data}:
        if name in plan.transfer_sets:
            datasets.add_set(name, transfer.load(name, workdir, train, datasets.task))
        elif name in plan.trusted_sets:
            datasets.add_set(
                name, trusted.load(name, plan.trusted_sets[name], workdir, train).source
            )
