"""Labels and probabilities of new inputs, from an exported student alone, as a stream of JSON
lines."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.data.readers import unlabelled
from kd_jax.data.readers.unlabelled import Row
from kd_jax.data.source import Source
from kd_jax.data.views.image import ImageView
from kd_jax.data.views.text import TextView
from kd_jax.data.views.tokenizer_file import read_tokenizer
from kd_jax.export.kd_jax_format import DESCRIPTION
from kd_jax.export.student import apply, task_of
from kd_jax.models.weights import files, load

ANSWER = (
    *("row", "record", "file", "error"),
    *("label", "labels", "tags", "values", "probabilities", "embedding", "masks"),
)
"""Keys of an answer, whose names no column that is kept can have."""

BATCH_SIZE = 64
"""Rows that are predicted at a time."""

BATCHES = 32
"""Of short texts that are read before the first is predicted, so that texts of like lengths can go
together; images are read a batch at a time."""

LARGEST_PART = 1_000_000
"""Characters of the texts of such a part, at about which it ends with the batch."""


class Predictor:
    """An exported student, ready to predict.

    Args:
      folder: the export, which holds architecture.json.

    Raises:
      ValueError: if it isn't one, or is damaged.
    """

    DESCRIPTION = DESCRIPTION

    def __init__(self, folder: Path):
        # The description comes first: its absence means that the export isn't whole.
        self.description = files.read_json(folder / self.DESCRIPTION)
        module, variables = load.load(folder)
        self._run = jax.jit(lambda inputs: apply(module, variables, inputs))
        self.task = task_of(self.description)
        self._view = self._make_view(folder)

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns the columns of a table that hold a row's text."""
        columns = self.description["columns"]
        return (columns,) if isinstance(columns, str) else tuple(columns)

    @property
    def modality(self) -> str:
        """Returns "text" or "image"."""
        return "image" if "images" in self.description["inputs"] else "text"

    def _make_view(self, folder: Path) -> TextView | ImageView:
        view = self.description["view"]
        if self.modality == "text":
            tokenizer = read_tokenizer(folder / "tokenizer.json")
            # Of a masked language model those tokens are asked for that are masks in the text.
            masks = None if self.task.masks is None else 0.0
            long = view.get("long", "truncate")
            return TextView(tokenizer, view["max_length"], self.task.words, masks, long)
        height, width, channels = self.description["inputs"]["images"]
        size = (height, width)
        return ImageView(
            size, tuple(view["mean"]), tuple(view["std"]), view["channels"] or channels
        )

    def logits(self, values: list[Any]) -> jax.Array:
        """Computes logits.

        Args:
          values: at most `BATCH_SIZE` texts, pairs of texts, or images uint8 `[H, W, C]`.

        Returns:
          `[N, K]`; of a task of a label a word, or of a mask, `[N, W, K]`, W words of the longest
          text or more, NaN where there is none and for words that were cut off.
        """
        names = tuple(self.description["class_names"])
        # Rows to predict have no label, which -1 says; the same views as in training prepare them.
        source = Source(
            "input", self.modality, values, np.full(len(values), -1, np.int32), names, ""
        )
        prepared: Any = self._view.prepare(source)
        length = None
        # Lengths come in a few steps, each of which is compiled once.
        if self.modality == "text":
            longest = int(prepared.lengths.max())
            length = next(step for step in prepared.buckets if step >= longest)
        # The last row fills the batch up, so that each length is compiled once.
        rows = np.minimum(np.arange(BATCH_SIZE), len(values) - 1)
        given = prepared.gather(rows, length)
        found = self._run(given)[: len(values)]
        if found.ndim == 2:
            return found
        there = given["positions"][: len(values), :, None] >= 0
        return jnp.where(there, found, jnp.nan)

    def answers(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """Yields one JSON object a row, in order: its place, and label and probabilities, or its
        error.
        """
        # Read in parts, because the input may be larger than the memory.
        for part in self._parts(rows):
            # Unreadable rows keep their place in the output but never reach the network.
            good = [row.value for row in part if row.error is None]
            found = iter(self._of_all(good))
            for row in part:
                bad = row.error is not None
                answer = {"error": row.error} if bad else self._answer(next(found))
                yield row.place | row.kept | answer

    def _parts(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        """Cuts a stream into what is in memory at once."""
        part, size = [], 0
        for row in rows:
            part.append(row)
            size += _characters(row.value) if self.modality == "text" else LARGEST_PART
            full = len(part) % BATCH_SIZE == 0 and size >= LARGEST_PART
            if full or len(part) == BATCH_SIZE * BATCHES:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _of_all(self, values: list[Any]) -> list[np.ndarray]:
        """Computes [K] outputs of each of any number of inputs, in their order."""
        found: dict[int, np.ndarray] = {}
        order = list(range(len(values)))
        # Texts of like lengths go together: each batch is padded to its longest.
        if self.modality == "text":
            order.sort(key=lambda i: _characters(values[i]))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            computed = np.asarray(self.logits([values[i] for i in batch]), np.float64)
            # Rows of words are as long as the longest of the batch.
            if self.task.words:
                counts = [len(values[i].split(" ")) for i in batch]
                computed = [row[:count] for row, count in zip(computed, counts, strict=True)]
            found |= dict(zip(batch, computed, strict=True))
        return [found[i] for i in range(len(values))]

    def _answer(self, outputs: np.ndarray) -> dict[str, Any]:
        if outputs.ndim == 2:
            known = outputs[~np.isnan(outputs).all(axis=-1)]
            if not np.isfinite(known).all():
                return {"error": "the model's outputs are not finite"}
            kept = outputs if self.task.words else known
            return self.task.predict_row(kept, self._names)
        # A value so large that the network overflows: JSON has no word for what comes out. One of
        # minus infinity rules a class out.
        if np.isnan(outputs).any() or np.isposinf(outputs).any() or np.isneginf(outputs).all():
            return {"error": "the model's outputs are not finite"}
        return self.task.predict_row(outputs, self._names)

    @cached_property
    def _names(self) -> list[str]:
        """Returns the names of the outputs."""
        if self.task.predicts == "vocabulary":
            assert isinstance(self._view, TextView)
            tokenizer, size = self._view.tokenizer, self.description["architecture"]
            return [tokenizer.id_to_token(i) or str(i) for i in range(size["vocabulary_size"])]
        return list(self.description["class_names"])


def _characters(value: Any) -> int:
    """Counts a text's, or a pair's, or nothing's."""
    return len(value or "") if isinstance(value, str | None) else sum(map(len, value))


def find_export(workdir: Path, name: str | None = None) -> Path:
    """Finds the export in a run's folder, or the folder itself where it is one.

    Raises:
      ValueError: if nothing was exported yet, or several models were and none is named.
    """
    if (workdir / DESCRIPTION).is_file():
        return workdir
    # Only folders with the description count, as an interrupted export has none.
    found = sorted(path.parent for path in (workdir / "export").glob(f"*/{DESCRIPTION}"))
    chosen = [folder for folder in found if name in (None, folder.name)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(folder.name for folder in found) or "none"
    if found:
        raise ValueError(f"{workdir} has exports of {names}; say which with --model")
    raise ValueError(
        f"{workdir} has no export; make one with: launch.py --stage=export --workdir={workdir}"
    )


def predict(
    workdir: Path,
    path: Path,
    output: TextIO,
    name: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    keep: Mapping[str, str] | None = None,
) -> Mapping[str, int]:
    """Predicts everything in a file or folder.

    Args:
      workdir: of a run with an export, or the export.
      path: what to read, see `kd_jax.data.readers.unlabelled`.
      output: gets one line of JSON for each row.
      name: of the exported model where there are several.
      columns: the model's column -> what the table calls it, where that differs.
      keep: name in the answer -> column of the table that is copied there, of unreadable rows too.

    Returns:
      How many rows were "predicted" and how many "unreadable".

    Raises:
      ValueError: if there is no export, the input is of a kind that it doesn't read or lacks a
        column, or a name is one of `ANSWER`.
    """
    if taken := sorted(set(keep or ()) & set(ANSWER)):
        raise ValueError(
            f"--keep: an answer has a {taken[0]!r} of its own; give the column another name:"
            f" --keep=NAME:{taken[0]}"
        )
    predictor = Predictor(find_export(workdir, name))
    named = _rename(predictor, columns or {})
    counts = {"predicted": 0, "unreadable": 0}
    channels = (
        predictor.description["inputs"]["images"][-1] if predictor.modality == "image" else None
    )
    words = predictor.task.words
    rows = unlabelled.read(path, predictor.modality, named, channels, keep, words)
    # One line at a time, so that whoever reads the stream can begin at once.
    for answer in predictor.answers(unlabelled.show_progress(rows)):
        counts["unreadable" if "error" in answer else "predicted"] += 1
        output.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")
    output.flush()
    return counts


def _rename(predictor: Predictor, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Returns what a table calls the columns that the model reads."""
    read = predictor.columns if predictor.modality == "text" else ()
    if unknown := sorted(set(columns) - set(read)):
        raise ValueError(
            f"--columns: the model reads no column {unknown[0]!r}; it reads"
            f" {', '.join(read) or 'images'}"
        )
    return tuple(columns.get(column, column) for column in read)


def predict_to_file(
    workdir: Path, path: Path, output: Path, name: str | None = None, **options: Any
) -> Mapping[str, int]:
    """Predicts everything in a file or folder, and writes a file of it whole or not at all.

    Args:
      workdir: of a run with an export, or the export.
      path: what to read.
      output: the file; what is there stays until all rows are predicted. A pipe or a device is
        written to as rows come.
      name: of the exported model where there are several.
      **options: `columns` and `keep` of `predict`.

    Returns:
      The counts of `predict`.

    Raises:
      ValueError: as `predict`, or if the output is the input or lies in it, is a folder, or is in
        no folder.
    """
    if output.is_dir() or not output.parent.is_dir():
        problem = "is a folder" if output.is_dir() else f"lies in {output.parent}, which is none"
        raise ValueError(f"--output {output} {problem}; it must be a file in an existing folder")
    # By inode and not by name, so that links and other spellings of the path are found too.
    if output.exists() and path.exists() and output.samefile(path):
        raise ValueError(f"--output {output} is the input itself, which would be lost")
    # There it could replace a picture, or be read as one.
    if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"--output {output} lies in the input folder {path}; write it elsewhere")
    if output.exists() and not output.is_file():
        with output.open("w", encoding="utf-8") as stream:
            return predict(workdir, path, stream, name, **options)
    # Through a link to where it points, so that the link stays one.
    target = output.resolve()
    temporary = target.with_name(target.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            counts = predict(workdir, path, stream, name, **options)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return counts
