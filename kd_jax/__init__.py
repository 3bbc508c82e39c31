"""Knowledge distillation in JAX: a big model teaches a small one, on your own data.

    import kd_jax as kd

    variables, metrics = kd.distill(
        student, (teacher, teacher_variables), batches,
        losses={"soft": kd.terms.SoftTargetKL(temperature=4.0)}, optimizer=optax.adamw(1e-3),
    )

`kd.losses` holds pure functions, for people who have a training loop; `kd.terms` what weighs them
in an objective; `kd.Distiller` one compiled step; `kd.experiment` and `kd.run` whole experiments
with a fair baseline, resumed where they were stopped; `kd.load` what they left."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_jax import losses, tasks
    from kd_jax.analysis.shapley import shapley_values
    from kd_jax.config.experiment import experiment
    from kd_jax.distiller import Distiller, distill
    from kd_jax.experiments.run import run
    from kd_jax.export.load import Run, load
    from kd_jax.html_report import write_report
    from kd_jax.models.registry import build as build_model
    from kd_jax.models.registry import register as register_model
    from kd_jax.models.weights.load import load as load_pretrained
    from kd_jax.objective import terms
    from kd_jax.objective.terms import register_term
    from kd_jax.tasks import register_task

__all__ = [
    "Distiller",
    "Run",
    "build_model",
    "distill",
    "experiment",
    "load",
    "load_pretrained",
    "losses",
    "register_model",
    "register_task",
    "register_term",
    "run",
    "shapley_values",
    "tasks",
    "terms",
    "write_report",
]

_PLACES = {
    "Distiller": ("kd_jax.distiller", "Distiller"),
    "Run": ("kd_jax.export.load", "Run"),
    "build_model": ("kd_jax.models.registry", "build"),
    "distill": ("kd_jax.distiller", "distill"),
    "experiment": ("kd_jax.config.experiment", "experiment"),
    "load": ("kd_jax.export.load", "load"),
    "load_pretrained": ("kd_jax.models.weights.load", "load"),
    "losses": ("kd_jax.losses", None),
    "register_model": ("kd_jax.models.registry", "register"),
    "register_term": ("kd_jax.objective.terms", "register_term"),
    "register_task": ("kd_jax.tasks", "register_task"),
    "run": ("kd_jax.experiments.run", "run"),
    "shapley_values": ("kd_jax.analysis.shapley", "shapley_values"),
    "tasks": ("kd_jax.tasks", None),
    "terms": ("kd_jax.objective.terms", None),
    "write_report": ("kd_jax.html_report", "write_report"),
}
"""Public name -> module, and what of it; None for the module itself."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: the losses alone need no data library."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = importlib.import_module(module)
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
