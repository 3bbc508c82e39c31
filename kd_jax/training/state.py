"""What a training step changes: the state of each model and the step count."""

from __future__ import annotations

import flax.struct

from kd_jax.core.types import Array, PyTree


@flax.struct.dataclass
class ModelState:
    """One trained model of a group.

    Attributes:
      params: the module's parameters.
      batch_stats: its BatchNorm batch_stats, `{}` for a module without any.
      term_params: trained parameters of its objective's terms, by term (the knowledge mapping
        network among them), and of its condition's map, as "condition".
      term_state: other state of those terms, by term.
      opt_state: the optimizer's state over `{"model": params, "objective": term_params}`.
      ema: moving average of `variables()`, if the model is its own teacher; else `{}`.
    """

    params: PyTree
    batch_stats: PyTree
    term_params: PyTree
    term_state: PyTree
    opt_state: PyTree
    # An empty dict has no leaves, so models without an average save nothing for it.
    ema: PyTree = flax.struct.field(default_factory=dict)

    def variables(self) -> dict[str, PyTree]:
        """Returns what `module.apply` takes."""
        return {"params": self.params} | (
            {"batch_stats": self.batch_stats} if self.batch_stats else {}
        )


@flax.struct.dataclass
class TrainState:
    """All that a training step changes, hence all that a checkpoint holds. Frozen teachers are not
    in it.

    Attributes:
      step: [] int32, steps taken.
      models: name -> `ModelState`, the models trained together.
    """

    step: Array
    models: dict[str, ModelState]

    @property
    def student(self) -> ModelState:
        """Returns the model of that name, or the only one there is.

        Raises:
          ValueError: naming the models, where it isn't clear which is meant.
        """
        if "student" in self.models:
            return self.models["student"]
        if len(self.models) == 1:
            return next(iter(self.models.values()))
        raise ValueError(f"which is the student? there are {', '.join(self.models)}")
