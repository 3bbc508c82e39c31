"""Checks that the models of an experiment can be cut over devices as `parallel` asks."""

import logging
from collections.abc import Mapping

from kd_jax.config.schema import ModelPlan
from kd_jax.core.pytree import leaves_by_path
from kd_jax.training.sharding import Parallel
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")


def check_replicated(plans: Mapping[str, ModelPlan], parallel: Parallel) -> None:
    """Refuses names in `parallel.replicated` that no model has.

    Raises:
      ValueError: naming one.
    """
    if unknown := sorted(parallel.replicated - plans.keys()):
        raise ValueError(
            f"parallel.replicated names {unknown[0]!r}; there are {', '.join(sorted(plans))}"
        )


def check_layout(models: Mapping[str, TrainedModel], parallel: Parallel) -> None:
    """Refuses tensor parallelism that cuts through attention heads, or cuts nothing.

    Args:
      models: by name, as shapes.
      parallel: how steps are spread over devices.

    Raises:
      ValueError: with the sizes that would do.
    """
    parts = parallel.mesh.shape["tensor"]
    if parts == 1:
        return
    cut = False
    for name, model in models.items():
        # An ensemble is its members, and a file of outputs has no parameters.
        if model.plan.members or model.plan.outputs or name in parallel.replicated:
            continue
        heads = getattr(model.network.module, "heads", parts)
        if heads % parts:
            fitting = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
            raise ValueError(
                f"parallel.tensor={parts} doesn't divide the {heads} attention heads of"
                f" models.{name}; {fitting} do, or parallel.replicated=({name!r},)"
            )
        _tell_vocabulary(name, model, parts)
        cut = cut or any(
            "tensor" in str(parallel.sharding(path, leaf, name).spec)
            for path, leaf in leaves_by_path(model.variables).items()
        )
    if not cut:
        raise ValueError(
            f"parallel.tensor={parts} cuts no parameter of {', '.join(models)}; with"
            " parallel.tensor=1 these devices share the batch"
        )


def _tell_vocabulary(name: str, model: TrainedModel, parts: int) -> None:
    """Says that each device holds all logits of a language head whose vocabulary can't be cut."""
    module = model.network.module
    if not (
        getattr(module, "language_head", False) or getattr(module, "predicts", None) == "vocabulary"
    ):
        return
    if (size := module.vocabulary_size) % parts:
        fitting = [str(n) for n in range(1, parts) if size % n == 0]
        log.warning(
            "models.%s: parallel.tensor=%d doesn't divide its vocabulary of %d tokens, so that each"
            " device holds all of its logits; %s would",
            name,
            parts,
            size,
            ", ".join(fitting),
        )
