"""Opens a finished run in Python: its results, and its models ready to be called."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from kd_jax.data.readers.tables import clean_words
from kd_jax.export.predict import BATCH_SIZE, Predictor
from kd_jax.models.weights import files


class LoadedModel(Predictor):
    """A finished model of a run: called with raw inputs, it returns logits.

    Args:
      folder: of the model in the run's folder, which holds finished.json.

    Raises:
      ValueError: if the model isn't finished, or is damaged.
    """

    DESCRIPTION = "finished.json"

    def __call__(self, inputs: Any) -> jax.Array:
        """Computes logits.

        Args:
          inputs: texts, lists of words for a task of a label a word, pairs of texts, or images
            uint8 `[N, H, W, C]` or a list of `[H, W, C]`;
            they are tokenized, or resized and normalized, as in training.

        Returns:
          `[N, K]` float, in the order of `class_names`; of a label a word, or a mask,
          `[N, W, K]`, NaN after a text's last one and for words that were cut off.
        """
        # A single text is a sequence of characters too, and would become many inputs.
        values = [inputs] if isinstance(inputs, str) else list(inputs)
        if self.task.words:
            values = [clean_words({"inputs": each}, "inputs") for each in values]
        # Each chunk has the size of one compiled batch, however many inputs there are.
        chunks = [values[i : i + BATCH_SIZE] for i in range(0, len(values), BATCH_SIZE)]
        if not chunks:
            raise ValueError("there are no inputs")
        found = [self.logits(chunk) for chunk in chunks]
        # Of several predictions an input, each chunk has as many as its longest.
        if found[0].ndim == 3:
            most = max(each.shape[1] for each in found)
            found = [_filled(each, most) for each in found]
        return jax.numpy.concatenate(found)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the K classes."""
        return tuple(self.description["class_names"])


def _filled(logits: jax.Array, most: int) -> jax.Array:
    """Returns `[N, most, K]`, NaN where there are fewer."""
    missing = ((0, 0), (0, most - logits.shape[1]), (0, 0))
    return jax.numpy.pad(logits, missing, constant_values=jax.numpy.nan)


class LoadedModels(Mapping[str, LoadedModel]):
    """The models of a run by name, opened when they are asked for."""

    def __init__(self, folder: Path, names: tuple[str, ...]):
        self._folder, self._names = folder, names
        self._opened: dict[str, LoadedModel] = {}

    def __getitem__(self, name: str) -> LoadedModel:
        if name not in self._names:
            raise KeyError(f"there is no model {name!r}; there are {', '.join(self._names)}")
        # Opened on demand: whoever wants the student need not load a large teacher.
        if name not in self._opened:
            self._opened[name] = LoadedModel(self._folder / name)
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Run:
    """A finished run.

    Attributes:
      path: its folder.
      results: what stands in results.json.
      config: the resolved config.
      models: name -> model, ensembles left out; call one with raw inputs.
    """

    def __init__(self, path: Path):
        self.path = path
        self.results: dict[str, Any] = files.read_json(path / "results.json")
        self.config: dict[str, Any] = files.read_json(path / "config.json")
        # An ensemble has no variables of its own, and so no finished.json.
        trained = [
            name for name in self.results["order"] if (path / name / "finished.json").is_file()
        ]
        self.models = LoadedModels(path, tuple(trained))

    @cached_property
    def student(self) -> LoadedModel:
        """Returns the compared student."""
        return self.models[self.results["compare"]["student"]]

    @cached_property
    def teacher(self) -> LoadedModel:
        """Returns the compared teacher."""
        return self.models[self.results["compare"]["teacher"]]

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, models: {', '.join(self.models)})"


def load(workdir: str | Path) -> Run:
    """Opens a finished run.

    Args:
      workdir: the run's folder.

    Raises:
      ValueError: if it is no run's folder, or the run isn't finished.
    """
    # Both files are asked for by name, since each missing one needs another remedy.
    path = Path(workdir)
    if not (path / "config.json").is_file():
        raise ValueError(f"{str(workdir)!r} is no run's folder: it has no config.json")
    if not (path / "results.json").is_file():
        raise ValueError(
            f"the run in {str(workdir)!r} is not finished; start it again and it goes on"
        )
    return Run(path)
