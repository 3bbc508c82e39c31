"""A teacher's outputs on examples, looked up on the host as a batch is made, and the teacher that
consists of them.

They lie in memory or in files that are read where they lie, so a device holds those of one batch
only, however many there are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import LOGITS, POSITIONS, Batch, ModelOutput
from kd_jax.teachers.compression import OF_LOGITS, expand

SMALL = 2**26
"""Bytes up to which an output of all examples is held in memory."""

Shape = tuple[int | None, ...]
"""Of one example's output; None where examples differ, all such axes of one by the same size."""


def view_of(name: str) -> str:
    """Returns the view of a batch that holds the outputs of a teacher of that name."""
    return f"outputs of {name}"


class Alike:
    """One output of N examples, of one shape each.

    Args:
      values: [N, ...].

    Attributes:
      shape: of an example's.
      dtype: of its numbers.
      sizes: None, as in `Varying`.
    """

    def __init__(self, values: np.ndarray):
        self.values, self.dtype = values, values.dtype
        self.shape: Shape = values.shape[1:]
        self.sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def read(self, rows: np.ndarray, found: np.ndarray, places: np.ndarray) -> None:
        """Writes the examples at `rows` [n] to `found[places]`, each from the first corner on;
        what there is no room for is left out."""
        corner = _corner(self.shape, found.shape[1:])
        found[(places, *corner)] = self.values[(rows, *corner)]


class Varying:
    """One output of N examples that differ in some axes.

    Args:
      values: flat, one example after the other.
      shape: of an example's, None where they differ.
      sizes: [N] int, of the axes where `shape` has None.
    """

    def __init__(self, values: np.ndarray, shape: Shape, sizes: np.ndarray):
        self.values, self.dtype = values, values.dtype
        self.shape: Shape = tuple(shape)
        self.sizes: np.ndarray | None = np.asarray(sizes, np.int64)
        self._sizes = self.sizes
        varying = sum(size is None for size in self.shape)
        same = math.prod(size for size in self.shape if size is not None)
        self._ends = np.cumsum(same * self._sizes**varying)

    def __len__(self) -> int:
        return len(self._sizes)

    def read(self, rows: np.ndarray, found: np.ndarray, places: np.ndarray) -> None:
        """Writes the examples at `rows` to `found`; see `Alike.read`."""
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            size = int(self._sizes[row])
            start = int(self._ends[row - 1]) if row else 0
            own = self.values[start : int(self._ends[row])].reshape(sized(self.shape, size))
            corner = _corner(own.shape, found.shape[1:])
            found[(place, *corner)] = own[corner]


Column = Alike | Varying
"""One output of N examples: a layer's, or the logits."""


def _corner(shape: Sequence[int | None], room: Sequence[int]) -> tuple[slice, ...]:
    """Returns what of an output there is room for."""
    return tuple(slice(min(have or 0, most)) for have, most in zip(shape, room, strict=True))


def sized(shape: Shape, size: int) -> tuple[int, ...]:
    """Returns the shape of an example whose varying axes have a size."""
    return tuple(size if each is None else each for each in shape)


def column(values: np.ndarray | Sequence[np.ndarray]) -> Column:
    """Makes a column of an array [N, ...], or of N arrays that differ in their first axis."""
    if isinstance(values, np.ndarray):
        return Alike(values)
    flat = np.concatenate([each.reshape(-1) for each in values])
    return Varying(flat, (None, *values[0].shape[1:]), np.array([len(each) for each in values]))


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of one teacher on N examples; a `PreparedView` of them.

    Attributes:
      parts: columns by the outputs' names, of neighbouring examples each; all have the same names.
      longest: the most tokens that the teacher reads of a text; None where no output has an axis
        of tokens.
      classes: how many logits the teacher has, where not all of them are kept; else None.
    """

    parts: Sequence[Mapping[str, Column]]
    longest: int | None = None
    classes: int | None = None

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part[LOGITS]) for part in self.parts])

    @cached_property
    def shapes(self) -> dict[str, tuple[Shape, np.dtype]]:
        """Returns shape and dtype of an example's outputs, by name."""
        return {
            name: (_common([part[name] for part in self.parts]), self.parts[0][name].dtype)
            for name in self.parts[0]
        }

    @property
    def lengths(self) -> np.ndarray | None:
        """Returns [N] tokens of each example; None where no output has an axis of them."""
        return self._lengths

    @cached_property
    def _lengths(self) -> np.ndarray | None:
        by_token = [name for name in self.shapes if self._by_token(name)]
        if not by_token:
            return None
        sizes = [np.max([_sizes(part[name]) for name in by_token], axis=0) for part in self.parts]
        return np.concatenate(sizes)

    @cached_property
    def _small(self) -> dict[str, np.ndarray]:
        """Returns what takes little memory as a whole: it is found in one look-up."""
        found = {}
        for name in self.shapes:
            columns = [part[name] for part in self.parts]
            alike = None not in self.shapes[name][0] and all(c.sizes is None for c in columns)
            if alike and sum(each.values.nbytes for each in columns) <= SMALL:
                found[name] = np.concatenate([each.values for each in columns])
        return found

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _by_token(self, name: str) -> bool:
        # The logits of several predictions an example have an axis of those, not of tokens.
        return name not in OF_LOGITS and self.longest is not None and None in self.shapes[name][0]

    def gather(
        self, indices: np.ndarray, length: int | None = None, draws: Any = None
    ) -> dict[str, np.ndarray]:
        """Returns the outputs on some examples: name -> [b, ...], zeros where an example's is
        smaller; of the positions 0 where a prediction is, -1 elsewhere.

        Args:
          indices: [b] positions among the N.
          length: tokens to make room for; None: as many as the teacher reads at most.
          draws: None; an example always has the same outputs.
        """
        if draws is not None:
            raise ValueError("stored outputs are of examples as they are, not augmented")
        found = self._looked_up(indices, length)
        if POSITIONS in found:
            found[POSITIONS] = np.where(found[POSITIONS], 0, -1).astype(np.int32)
        return found

    def _looked_up(self, indices: np.ndarray, length: int | None) -> dict[str, np.ndarray]:
        found = {name: values[indices] for name, values in self._small.items()}
        if len(found) == len(self.shapes):
            return found
        of_part = np.searchsorted(self._ends, indices, side="right")
        first = self._ends - np.array([len(part[LOGITS]) for part in self.parts])
        # Sorted once, so that each part is looked into once.
        order = np.argsort(of_part, kind="stable")
        numbers, starts = np.unique(of_part[order], return_index=True)
        chosen = [*zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)]
        for name, (shape, dtype) in self.shapes.items():
            if name in found:
                continue
            room = 0
            if self._by_token(name):
                assert self.longest is not None
                room = self.longest if length is None else min(length, self.longest)
            elif None in shape:
                room = max(
                    int(_sizes(self.parts[part][name])[indices[at] - first[part]].max())
                    for part, at in chosen
                )
            # Where examples are of one size each number is written below.
            made = np.zeros if None in shape else np.empty
            found[name] = made((len(indices), *sized(shape, room)), dtype)
            for part, at in chosen:
                self.parts[part][name].read(indices[at] - first[part], found[name], at)
        return found


@dataclass(frozen=True, eq=False)
class OutputsByPlace(Outputs):
    """Outputs on the rows of batches that come again, in their order, and not on examples."""

    @property
    def lengths(self) -> np.ndarray | None:
        """Returns None: they don't decide which examples share a batch."""
        return None


def join(outputs: Sequence[Outputs]) -> Outputs:
    """Returns the outputs on the examples of several sources, one after the other."""
    parts = [part for each in outputs for part in each.parts]
    longest = [each.longest for each in outputs if each.longest is not None]
    return Outputs(parts, max(longest, default=None), outputs[0].classes)


def _sizes(of: Column) -> np.ndarray:
    if of.sizes is not None:
        return of.sizes
    return np.full(len(of), max((size or 0 for size in of.shape[:1]), default=0))


def _common(columns: Sequence[Column]) -> Shape:
    """Returns the shape of an example of any of the columns."""
    shapes = [each.shape for each in columns]
    return tuple(sizes[0] if len({*sizes}) == 1 else None for sizes in zip(*shapes, strict=True))


@dataclass(frozen=True)
class StoredTeacher:
    """Stands where a `Network` stands, and reads its outputs from the batch; it has no variables.

    Attributes:
      view: where they are.
      classes: how many logits there are, where not all of them are kept; else None.
    """

    view: str
    classes: int | None = None

    def __call__(self, variables: Any, batch: Batch) -> ModelOutput:
        """Returns the outputs that the batch brings along."""
        del variables
        view = batch.views[self.view]
        found = {name: jnp.asarray(view[name]) for name in view if name != POSITIONS}
        kept = {name: found.pop(name) for name in OF_LOGITS if name in found}
        logits = kept[LOGITS] if self.classes is None else expand(kept, self.classes)
        return ModelOutput(logits, found)

    def frozen(self, variables: Any) -> Any:
        """Returns the variables, of which there are none."""
        return variables
