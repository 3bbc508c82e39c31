"""What a writer of metrics is, and the run that it follows."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class FollowedRun:
    """A run whose metrics are written.

    Attributes:
      folder: the run's.
      config: resolved.
    """

    folder: Path
    config: Mapping[str, Any]

    @property
    def experiment(self) -> str:
        """Returns the experiment's name."""
        return str(self.config["name"])


class Writer(ABC):
    """Writes the metrics of a run's models to one place.

    Args:
      run: whose metrics they are.
    """

    extra: ClassVar[str | None] = None
    """The package that it needs, and the extra of the same name that installs it; None: what comes
    with kd_jax."""

    def __init__(self, run: FollowedRun):
        self._folder = run.folder

    # What most writers don't need does nothing here.
    def begin(self, model: str, resumed_at: int) -> None:  # noqa: B027
        """Prepares for a model's training; steps after `resumed_at` may have been written before.

        Args:
          model: the model's name.
          resumed_at: the step that it goes on from.
        """

    @abstractmethod
    def write(self, model: str, step: int, values: Mapping[str, float]) -> None:
        """Writes finite values of one step of a model, by metric."""

    def end(self, model: str) -> None:  # noqa: B027
        """Tells that a model's training is over, for now at least."""

    def close(self, *, ended: bool) -> None:  # noqa: B027
        """Tells that nothing more comes; `ended`: whether the run went to its end."""
