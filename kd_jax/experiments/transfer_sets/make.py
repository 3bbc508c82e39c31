"""Transfer sets: new inputs that a trained teacher labels, for students to learn from beside the
training data."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kd_jax.config.names import TRAIN
from kd_jax.core.json_files import as_json
from kd_jax.core.rng import derived_seed
from kd_jax.core.shared_files import written
from kd_jax.core.types import LOGITS, POSITIONS, Batch, ModelOutput, Variables
from kd_jax.data.cleaning.clean import Limits
from kd_jax.data.source import Source, fingerprint, text_contents
from kd_jax.experiments.transfer_sets import storage
from kd_jax.experiments.transfer_sets.filter import Sound, choose, sift
from kd_jax.experiments.transfer_sets.generate import find_candidates
from kd_jax.models.network import Network
from kd_jax.tasks import CLASSIFICATION, Task
from kd_jax.teachers import compute, kept_outputs
from kd_jax.teachers.ensemble import without_labels
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

FOLDER = "transfer_sets"

log = logging.getLogger("kd_jax")


@dataclass(frozen=True)
class TransferSet:
    """A finished transfer set.

    Attributes:
      source: its examples.
      provenance: JSON: what it was made from, and how much of that was dropped and kept.
    """

    source: Source
    provenance: dict[str, Any]


def is_made(workdir: Path, name: str) -> bool:
    """Tells whether an earlier start of a run has made a set."""
    return storage.provenance(workdir / FOLDER, name) is not None


def check_restored(spec: Mapping[str, Any]) -> None:
    """Checks that a section's `restore`, where it has any, is the folder of a whole set.

    Raises:
      ValueError: if it isn't.
    """
    folder = spec.get("restore")
    if folder is None:
        return
    if storage.provenance(*_place(folder)) is None:
        raise ValueError(f"restore: there is no whole transfer set in {folder!r}")
    if missing := storage.missing_files(*_place(folder)):
        raise ValueError(f"restore: the set in {folder!r} lacks {', '.join(missing)}")


def _place(folder: str) -> tuple[Path, str]:
    path = Path(folder).expanduser()
    return path.parent, path.name


def load(name: str, workdir: Path, train: Source, task: Task = CLASSIFICATION) -> Source:
    """Loads a transfer set of a finished run.

    Args:
      name: of the set.
      workdir: the run's folder.
      train: its training split, whose inputs and classes are of the same kind.
      task: of its models.

    Raises:
      ValueError: if it isn't there.
    """
    if not is_made(workdir, name):
        raise ValueError(f"the run in {workdir} has no whole transfer set {name!r}")
    # A stored set looks like the training split, so that one's inputs tell whether texts are pairs.
    pairs = isinstance(train.inputs[0], tuple)
    return storage.read(workdir / FOLDER, name, train.modality, pairs, train.class_names, task)


def make(
    name: str,
    spec: Mapping[str, Any],
    teacher: TrainedModel,
    context: RunContext,
    *,
    keep_outputs: bool,
) -> TransferSet:
    """Makes a transfer set, or finds the one that was made from the same teacher, data and options.

    Args:
      name: of the set.
      spec: its section, checked.
      teacher: who labels it.
      context: the data and the devices.
      keep_outputs: whether the teacher's outputs on it are kept for a student that learns from them
        too.

    Raises:
      ValueError: if nothing is left of its source, or too much of it repeats the evaluation data.
    """
    root, train = context.workdir / FOLDER, context.datasets.splits["train"]
    task = context.datasets.task
    # All that the set depends on; only a set with equal facts is used again.
    facts = {
        "teacher": spec["teacher"],
        "teacher_fingerprint": teacher.description["fingerprint"],
        "training_data": _base(spec, context).fingerprint,
        "seed": derived_seed(context.seed, "transfer", name),
        "options": as_json(
            {key: value for key, value in spec.items() if key not in ("teacher", "restore")}
        ),
    }
    found = storage.provenance(root, name)
    if spec.get("restore") is not None:
        # That it was drawn by another seed is why it is taken over.
        made_of = {key: value for key, value in facts.items() if key != "seed"}
        if found is None or {key: found.get(key) for key in made_of} != made_of:
            _restore(name, spec["restore"], made_of, root)
        source = load(name, context.workdir, train, task)
        # It was sifted by the other run's held-out data.
        if dropped := _sift(source.inputs, spec, context).dropped:
            raise ValueError(
                f"transfer_sets.{name}.restore: of the set in {spec['restore']!r} some rows are not"
                f" for this run: {dropped}"
            )
        return TransferSet(source, storage.provenance(root, name) or {})
    # Labelling can take long, so a set is made again only where something changed.
    if found is None or {key: found.get(key) for key in facts} != facts:
        if found is not None:
            log.warning("transfer_sets.%s was made from something else; it is made again", name)
        try:
            return _make(name, spec, teacher, context, facts, keep_outputs)
        except ValueError as error:
            raise ValueError(f"transfer_sets.{name}: {error}") from None
    return TransferSet(load(name, context.workdir, train, task), found)


def _make(
    name: str,
    spec: Mapping[str, Any],
    teacher: TrainedModel,
    context: RunContext,
    facts: dict,
    keep_outputs: bool,
) -> TransferSet:
    train, task = context.datasets.splits["train"], context.datasets.task
    candidates = find_candidates(spec["source"], _base(spec, context), facts["seed"], task)
    # Sifted before the teacher is asked, whose time would be wasted on what is dropped.
    sound = _sift(candidates, spec, context)
    inputs, rows, labels = _pick(candidates, sound.rows), np.arange(len(sound.rows)), None
    asked = _as_source(name, inputs, context)
    outputs: compute.Table = {}
    chosen = spec["confidence"] or spec["per_class"] is not None
    if keep_outputs or chosen or spec["labels"] != "none":
        outputs = _outputs(teacher, asked, context, features=keep_outputs)
        logits = _without_cut_words(outputs, asked)
        # The soft labels have the section's temperature, the choice the teacher's own confidence.
        if (sureness := task.sureness(logits)) is not None:
            classes = logits.argmax(axis=-1) if task.one_class else None
            rows = choose(sureness, classes, spec["confidence"], spec["per_class"])
        if spec["labels"] != "none":
            labels = task.teach(logits[rows], spec["labels"], spec["temperature"])
    # These candidates are read once, and their prepared form would stay in memory.
    context.datasets.forget(asked)
    counts = {
        "candidates": len(candidates),
        "dropped": sound.dropped,
        "not_chosen": len(sound.rows) - len(rows),
        "kept": len(rows),
    }
    if labels is not None and task.one_class:
        likeliest = np.bincount(labels.argmax(axis=1), minlength=len(train.class_names))
        counts["by_class"] = dict(zip(train.class_names, likeliest.tolist(), strict=True))
    elif labels is not None:
        counts["labels"] = task.tell_labels(labels, train.class_names)[1]
    log.info(
        "transfer_sets.%s: %d of %d candidates kept; dropped: %s",
        name,
        len(rows),
        len(candidates),
        sound.dropped,
    )
    # All processes have the same rows, and two writers would disturb each other.
    if jax.process_index() == 0:
        labelled = storage.Labelled(_pick(inputs, rows), labels, train.class_names)
        soft = task.one_class and labels is not None
        storage.write(
            context.workdir / FOLDER, name, labelled, train.modality, facts | counts, soft=soft
        )
    written(storage.about(context.workdir / FOLDER, name))
    # Read back from disk, so that a first and a resumed start learn from the same source.
    source = load(name, context.workdir, train, task)
    # What an ensemble says may depend on the label, which its students are taught with.
    if keep_outputs and isinstance(teacher.network, Network):
        # The teacher was asked on these rows already, so a student that caches it can skip that.
        kept = {key: column[rows] for key, column in outputs.items()}
        kept_outputs.keep(teacher, source, kept)
    return TransferSet(source, facts | counts)


def _restore(name: str, folder: str, facts: Mapping[str, Any], root: Path) -> None:
    """Copies another run's set.

    Raises:
      ValueError: if it isn't there, or made of something else.
    """
    there = storage.provenance(*_place(folder))
    if there is None:
        raise ValueError(f"transfer_sets.{name}.restore: there is no whole set in {folder!r}")
    if other := [key for key, value in facts.items() if there.get(key) != value]:
        raise ValueError(
            f"transfer_sets.{name}.restore: the set in {folder!r} was made with another"
            f" {' and '.join(other)}"
        )
    if jax.process_index() == 0:
        storage.copy(*_place(folder), root, name)
    written(storage.about(root, name))


def _base(spec: Mapping[str, Any], context: RunContext) -> Source:
    """Returns what the set's source may change."""
    return context.datasets.training_source((spec.get("base", TRAIN),))


def _sift(candidates: Any, spec: Mapping[str, Any], context: RunContext) -> Sound:
    datasets = context.datasets
    # The selection split counts as held out too: what repeats it would spoil the choice.
    held_out = [
        value for role in ("selection", "evaluation") for value in datasets.splits[role].inputs
    ]
    limits = Limits(
        datasets.limits.max_characters, datasets.limits.max_pixels, spec["near_duplicate"] or None
    )
    train = datasets.splits["train"]
    return sift(
        candidates,
        train.inputs,
        held_out,
        modality=train.modality,
        limits=limits,
        max_overlap=spec["max_overlap"],
    )


def _as_source(name: str, inputs: Any, context: RunContext) -> Source:
    """Returns new inputs as a source of which nobody knows the labels."""
    train, task = context.datasets.splits["train"], context.datasets.task
    # The fingerprint is of the contents, so two sets of inputs are never taken for each other.
    contents = (
        text_contents(inputs)
        if train.modality == "text"
        else (np.asarray(image).tobytes() for image in inputs)
    )
    labels = task.no_labels(len(inputs), train.class_names)
    return Source(
        f"transfer set {name}",
        train.modality,
        inputs,
        labels,
        train.class_names,
        fingerprint(contents, labels, train.class_names),
    )


def _outputs(
    teacher: TrainedModel, source: Source, context: RunContext, *, features: bool
) -> compute.Table:
    """Returns the teacher's logits [N, K], and what else of one vector an example it gives."""
    network = without_labels(teacher.network)
    return compute.outputs(
        teacher, source, context, network=network if features else partial(_logits_only, network)
    )


def _without_cut_words(outputs: compute.Table, source: Source) -> np.ndarray:
    """Returns logits, of words as many as the longest text has, NaN where the teacher has not read
    one."""
    logits = outputs[LOGITS]
    if POSITIONS not in outputs:
        return logits
    longest = max(len(text.split(" ")) for text in source.inputs)
    # Rows of a table are as wide as the batches were, which may be more or less than the words.
    wide = np.full((len(source), longest, logits.shape[-1]), np.nan, np.float32)
    width = min(longest, logits.shape[1])
    there = outputs[POSITIONS][:, :width, None]
    wide[:, :width] = np.where(there, logits[:, :width], np.nan)
    return wide


def _logits_only(network: Any, variables: Variables, batch: Batch) -> ModelOutput:
    """Features aren't kept, so they need not be computed or fetched."""
    return ModelOutput(network(variables, batch).logits, {})


def _pick(values: Any, rows: np.ndarray) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
