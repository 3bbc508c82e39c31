"""TensorBoard's events, in a folder of each model."""

from collections.abc import Mapping
from typing import Any

from kd_jax.training.writers.writer import FollowedRun, Writer


class TensorBoard(Writer):
    """Writes events to `RUN/<model>/events`."""

    def __init__(self, run: FollowedRun):
        super().__init__(run)
        self._events: dict[str, Any] = {}

    def begin(self, model: str, resumed_at: int) -> None:
        """Opens the model's events."""
        # TensorBoard never rewrites its files; purge_step makes it ignore what will come again.
        self._open(model, purge_step=resumed_at + 1)

    def write(self, model: str, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars under the model's name."""
        # What a finished model reached is written after its training, or without any.
        events = self._events.get(model) or self._open(model)
        for name, value in values.items():
            events.add_scalar(f"{model}/{name}", value, step)

    def end(self, model: str) -> None:
        """Closes the model's events."""
        if model in self._events:
            self._events.pop(model).close()

    def close(self, *, ended: bool) -> None:  # noqa: ARG002
        """Closes what is still open."""
        for model in list(self._events):
            self.end(model)

    def _open(self, model: str, **options: Any) -> Any:
        # It imports torch wherever that is installed: four seconds, not for a refusal.
        from tensorboardX import SummaryWriter

        events = self._events[model] = SummaryWriter(
            str(self._folder / model / "events"), **options
        )
        return events
