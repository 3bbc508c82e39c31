"""Names the axes of parameters and activations, so that tensor parallelism knows what to cut.

The names stand here for all networks of kd_jax, which call alike what is alike; a network of your
own that uses these names of submodules is cut as well, and all others live whole on each device."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PARAMETERS: dict[str, tuple[str | None, ...]] = {
    "word_embeddings/embedding": ("vocab", "embed"),
    "qkv/kernel": ("embed", "heads"),
    "qkv/bias": ("heads",),
    "attention_output/kernel": ("heads", "embed"),
    "intermediate/kernel": ("embed", "mlp"),
    "intermediate/bias": ("mlp",),
    "output/kernel": ("mlp", "embed"),
    "language_dense/kernel": ("embed", "mlp"),
    "language_dense/bias": ("mlp",),
    "language_bias": ("vocab",),
    "classifier/kernel": (None, "classes"),
    "classifier/bias": ("classes",),
    "distillation_classifier/kernel": (None, "classes"),
    "distillation_classifier/bias": ("classes",),
}
"""End of a parameter's path -> its last axes; a scanned stack has one more in front."""

CUT = ("vocab", "classes", "heads", "mlp", "embed")
"""What `parallel.tensor` cuts of a parameter: the first of these that it has and that divides.

Last the width, so that a vocabulary of an odd number of tokens doesn't stay whole."""

_MESH: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


def axes_of(path: str, dimensions: int) -> tuple[str | None, ...]:
    """Returns the names of a parameter's axes, None for those without one.

    Args:
      path: slash-separated; what stands before the parameter's own place, such as the optimizer's,
        doesn't matter.
      dimensions: how many axes it has.
    """
    parts = path.split("/")
    for end in ("/".join(parts[-2:]), parts[-1]):
        names = PARAMETERS.get(end, ())
        if names and len(names) <= dimensions:
            return (None,) * (dimensions - len(names)) + names
    return (None,) * dimensions


@contextmanager
def over(mesh: Mesh | None) -> Iterator[None]:
    """Lets `constrain` cut activations over the axis "tensor" of a mesh; None: not at all."""
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def is_cutting() -> bool:
    """Tells whether `constrain` cuts activations here."""
    return _MESH.get() is not None


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Lays an activation out over the axis "tensor", within `over`; elsewhere `x` comes back.

    Args:
      x: an activation, or a parameter that is used in another shape, in a compiled program.
      axes: for each of its axes "heads", "mlp" or "vocab", which are cut; "embed", which is whole;
        or None, of which the compiler decides.
    """
    mesh = _MESH.get()
    if mesh is None:
        return x
    parts, free = mesh.shape["tensor"], PartitionSpec.UNCONSTRAINED
    cut = [
        free if axis is None else "tensor" if axis != "embed" and size % parts == 0 else None
        for axis, size in zip(axes, x.shape, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*cut)))
