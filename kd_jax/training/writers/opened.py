"""The writers of a run that are open, as one."""

import logging
from collections.abc import Callable, Mapping

from kd_jax.training.writers.writer import Writer

log = logging.getLogger("kd_jax")


class OpenedWriters:
    """Passes everything on to each open writer.

    One that fails, say as its server is gone, is named once and left out from then on: a training
    of hours must not be lost for its dashboard.
    """

    def __init__(self) -> None:
        self._writers: dict[str, Writer] = {}

    def add(self, name: str, writer: Writer) -> None:
        """Adds a writer under its name in the config."""
        self._writers[name] = writer

    def begin(self, model: str, resumed_at: int) -> None:
        """Begins a model's training; see `Writer`."""
        self._each(lambda writer: writer.begin(model, resumed_at))

    def write(self, model: str, step: int, values: Mapping[str, float]) -> None:
        """Writes values of one step of a model; see `Writer`."""
        self._each(lambda writer: writer.write(model, step, values))

    def end(self, model: str) -> None:
        """Ends a model's training; see `Writer`."""
        self._each(lambda writer: writer.end(model))

    def close(self, *, ended: bool) -> None:
        """Closes all; see `Writer`."""
        self._each(lambda writer: writer.close(ended=ended))

    def _each(self, call: Callable[[Writer], None]) -> None:
        for name, writer in list(self._writers.items()):
            try:
                call(writer)
            except Exception as error:
                del self._writers[name]
                told = " ".join(str(error).split()) or type(error).__name__
                log.warning("logging.writers: %s failed, and gets nothing more: %s", name, told)
