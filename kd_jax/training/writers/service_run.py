"""The run of a tracking service that a folder's metrics go to."""

from collections.abc import Mapping

from kd_jax.config.hashing import config_hash
from kd_jax.core.json_files import read_facts, write_json
from kd_jax.training.writers.writer import FollowedRun


class ServiceRun:
    """Remembers, in `RUN/<service>_run.json`, which run it is and what was logged there.

    So a resumed run goes on in it. It takes the steps after its checkpoint again, to the same
    numbers, so what was logged of them isn't logged again. A folder that another config takes over
    begins another run.

    Args:
      run: whose metrics they are.
      service: its name, for the file.
    """

    def __init__(self, run: FollowedRun, service: str):
        self._path = run.folder / f"{service}_run.json"
        self._config = config_hash(run.config)
        needed = ("id", "config", "steps")
        found = read_facts(self._path, needed, f"another run of {service} is begun")
        same = found is not None and found["config"] == self._config
        self.id: str | None = str(found["id"]) if found and same else None
        self._steps: dict[str, int] = dict(found["steps"]) if found and same else {}
        # Whether the process before this one came to an orderly end.
        self._closed = bool(found.get("closed", True)) if found and same else True

    def begin(self, identifier: str) -> None:
        """Notes the run's id; a new one knows of no steps."""
        if identifier != self.id:
            self.id, self._steps = identifier, {}
            self._write()

    def new(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Returns the values, by full name, that weren't logged at this step or a later one."""
        return {name: value for name, value in values.items() if step > self._steps.get(name, -1)}

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Notes what was logged, after it was: a failure in between must lose nothing."""
        self._steps |= dict.fromkeys(values, step)
        self._write()

    def forget_if_killed(self, model: str, step: int) -> None:
        """Forgets a model's values after a step if the process before was killed.

        For a service that keeps values in memory for a while: they are logged again, and may then
        stand there twice, which is better than not at all.
        """
        if not self._closed:
            for name, last in self._steps.items():
                if name.startswith(f"{model}/"):
                    self._steps[name] = min(last, step)

    def close(self) -> None:
        """Notes that everything was handed over."""
        self._write(closed=True)

    def _write(self, *, closed: bool = False) -> None:
        facts = {"id": self.id, "config": self._config, "steps": self._steps, "closed": closed}
        write_json(self._path, facts)
