"""The terms of an objective: thin adapters from a loss function to what it reads of student, teacher and batch.

A new loss is one function in `kd_jax.losses`, one adapter here, one line in `TERMS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.models.mapping import build_mapping
from kd_jax.network import cast
from kd_jax.schedules import extremes, make_value
from kd_jax.types import Batch, Mean, ModelOutput

PyTree = Any


@dataclass(frozen=True)
class Site:
    """Where a term stands: what it may read, known before anything runs.

    Attributes:
      view: name of the student's view.
      student: the student's output as `jax.ShapeDtypeStruct`s.
      teachers: teacher's name -> its output, likewise.
      tokens: length `T` of the student's view for text, None for images.
    """

    view: str
    student: ModelOutput
    teachers: Mapping[str, ModelOutput]
    tokens: int | None

    def teacher(self, name: str | None) -> str:
        """The teacher a term means: the one it names, or the only one there is."""
        if not self.teachers:
            raise ValueError("it needs a teacher and the model has none (teachers=())")
        if name is None and len(self.teachers) == 1:
            return next(iter(self.teachers))
        if name is None or name not in self.teachers:
            wanted = "it must say which teacher (source=...)" if name is None else f"unknown teacher {name!r}"
            raise ValueError(f"{wanted}; there are {', '.join(sorted(self.teachers))}")
        return name

    def feature(self, output: ModelOutput, layer: str, owner: str) -> Any:
        """A feature's shape, or an error that lists the layers."""
        if layer not in output.features:
            raise ValueError(f"{owner} has no layer {layer!r}; it has {', '.join(sorted(output.features))}")
        return output.features[layer]


Apply = Callable[
    [PyTree, PyTree, ModelOutput, Mapping[str, ModelOutput], Batch, Any, jax.Array], tuple[jax.Array, PyTree]
]


@dataclass(frozen=True)
class Term:
    """One loss of an objective.

    Attributes:
      kind: what a value belongs to, and so which mask counts it: "example" [B, ...] (further axes are averaged first),
        "token" [B, T] (the student view's attention mask), or "batch" [] (sees the whole microbatch; counts once, and
        must itself leave out the rows that are not valid).
      values: `(params, memory, student, teachers, batch, step, key) -> (unreduced values, new memory)`.
      init: `key -> (params, memory)`; nothing trained and nothing kept unless a term says so.
      labelled: whether examples without a label are left out.
      view: the student's view, whose mask a "token" term uses.
    """

    kind: str
    values: Apply
    view: str
    labelled: bool = False
    init: Callable[[jax.Array], tuple[PyTree, PyTree]] = field(default=lambda _: ({}, {}))

    def mask(self, batch: Batch) -> jax.Array:
        """Bool: what counts, with the batch's leading axes; [] for a "batch" term of one microbatch."""
        valid = jnp.asarray(batch.valid)
        if self.labelled:
            valid = valid & batch.label_valid
        if self.kind == "batch":
            # Every device counts the microbatch, also one that holds none of its valid rows.
            return jnp.ones(valid.shape[:-1], bool)
        if self.kind == "token":
            return valid[..., None] & (jnp.asarray(batch.views[self.view]["attention_mask"]) > 0)
        return valid

    def count(self, batch: Batch) -> jax.Array:
        """[] how many values count; known before the models run, whatever the batch's leading axes."""
        return jnp.sum(self.mask(batch))

    def apply(
        self, params: PyTree, memory: PyTree, student: ModelOutput, teachers: Mapping[str, ModelOutput], batch: Batch,
        step: Any, key: jax.Array,
    ) -> tuple[Mean, PyTree]:  # fmt: skip
        """The term over one microbatch, as a mean over what counts, and the term's new memory."""
        values, memory = self.values(params, memory, student, teachers, batch, step, key)
        mask = self.mask(batch)
        if self.kind == "example":
            values = values.reshape(*mask.shape, -1).mean(axis=-1)
        return Mean(jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask)), memory


def cross_entropy(site: Site) -> Term:
    """Hard labels."""

    def values(_params, memory, student, _teachers, batch, _step, _key):
        return losses.cross_entropy(student.logits, batch.labels), memory

    return Term("example", values, site.view, labelled=True)


def soft_target_kl(site: Site, *, temperature: float | Mapping, source: str | None = None) -> Term:
    """The teacher's softened predictions; labels are not needed."""
    name, at = site.teacher(source), make_value(temperature, "temperature")
    if any(not bound > 0 for bound in extremes(temperature)):
        raise ValueError(f"temperature must be positive, got {temperature}")
    classes, taught = site.student.logits.shape[-1], site.teachers[name].logits.shape[-1]
    if classes != taught:
        raise ValueError(f"the student has {classes} classes and teacher {name!r} has {taught}")

    def values(_params, memory, student, teachers, _batch, step, _key):
        return losses.soft_target_kl(student.logits, teachers[name].logits, temperature=at(step)), memory

    return Term("example", values, site.view)


def hidden_mse(site: Site, *, student: str, teacher: str, mapping: str | None, source: str | None = None) -> Term:
    """A student's layer, mapped to the teacher's width, against a teacher's layer."""
    name = site.teacher(source)
    inner = site.feature(site.student, student, "the student")
    outer = site.feature(site.teachers[name], teacher, f"teacher {name!r}")
    network = build_mapping(mapping, outer.shape[-1]) if mapping is not None else None
    mapped = inner.shape if network is None else (*inner.shape[:-1], outer.shape[-1])
    if mapped != outer.shape:
        hint = " (a mapping would fit the widths)" if inner.shape[:-1] == outer.shape[:-1] else ""
        raise ValueError(
            f"the student's {student!r} {inner.shape} can't be compared with {name}'s {teacher!r} {outer.shape}{hint}"
        )

    def init(key):
        if network is None:
            return {}, {}
        params = network.init(key, jnp.zeros(inner.shape, inner.dtype))["params"]
        return cast(params, jnp.promote_types(jnp.float32, inner.dtype)), {}

    def values(params, memory, student_output, teachers, _batch, _step, _key):
        hidden: Any = student_output.features[student]
        if network is not None:
            hidden = network.apply({"params": params}, hidden)
        return losses.hidden_mse(hidden, teachers[name].features[teacher]), memory

    tokens = site.tokens is not None and outer.ndim == 3 and outer.shape[1] == site.tokens
    return Term("token" if tokens else "example", values, site.view, init=init)


TERMS: dict[str, Callable[..., Term]] = {
    "cross_entropy": cross_entropy,
    "hidden_mse": hidden_mse,
    "soft_target_kl": soft_target_kl,
}
