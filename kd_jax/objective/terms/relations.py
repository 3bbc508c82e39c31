"""Terms on the relations of a batch's examples, and contrastive ones; each sees the whole batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.losses.checks import masked_mean
from kd_jax.models.network import cast
from kd_jax.models.projectors.projectors import build_projector
from kd_jax.objective.terms.features import ProjectedPair
from kd_jax.objective.terms.hyperparameters import adopts, bind
from kd_jax.objective.terms.term import StepContext, Term, TermSpec


def of_relations(loss: Callable[..., jax.Array], *, equal: bool = False) -> Callable[..., Term]:
    """A term's constructor from a loss `(student [B, ...], teacher [B, ...], where=[B])`, to `[]`
    or `[B]`.

    Options: `student` and `teacher`, a layer of each; `mapping` of the student's to the teacher's
    width, where one is wanted or needed (`equal`); `source`, the teacher where there are several.
    """

    @adopts(loss)
    def build(
        site: TermSpec,
        *,
        student: str = "pooled",
        teacher: str = "pooled",
        mapping: str | None = None,
        source: str | None = None,
        **given: Any,
    ) -> Term:
        pair = ProjectedPair(site, site.teacher(source), (student, teacher), mapping)
        if equal:
            pair.require_equal_shapes()
        bound = bind(loss, given, *pair.shapes)

        def values(params, memory, seen: StepContext):
            valid = jnp.asarray(seen.batch.valid)
            found = bound(seen.step, *pair.read(params, seen), where=valid)
            return (found if found.ndim == 0 else masked_mean(found, valid)), memory

        return Term("batch", values, site.view, init=lambda key: (pair.init(key), {}))

    return build


def contrastive_representation(
    site: TermSpec,
    *,
    student: str = "pooled",
    teacher: str = "pooled",
    width: int = 128,
    negatives: int = 16384,
    temperature: float = 0.07,
    momentum: float = 0.5,
    source: str | None = None,
) -> Term:
    """CRD: both layers embedded in `width` dimensions and told apart from `negatives` examples of
      other classes.

    The embeddings are trained parameters and the banks memory of the term: one row an example of
    the training data."""
    name, examples = site.teacher(source), len(site.labels)
    layers = {
        "student": site.feature(site.student, student, "the student"),
        "teacher": site.feature(site.teachers[name], teacher, f"teacher {name!r}"),
    }
    for option, value in (("width", width), ("negatives", negatives)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{option} must be a whole number from 1 on, got {value!r}")
    if not temperature > 0 or not 0 <= momentum < 1:
        raise ValueError(
            f"temperature must be positive and momentum in [0, 1), got {temperature} and {momentum}"
        )
    embedding = build_projector("linear", width)
    order = np.argsort(site.labels, kind="stable").astype(np.int32)
    starts = np.searchsorted(site.labels[order], np.arange(site.num_classes + 1)).astype(np.int32)

    def flat(x):
        return x.reshape(x.shape[0], -1)

    def init(key: jax.Array) -> tuple[Any, Any]:
        *keys, banks = jax.random.split(key, 3)
        params = {
            owner: embedding.init(k, jnp.zeros((1, int(np.prod(layer.shape[1:]))), layer.dtype))[
                "params"
            ]
            for k, (owner, layer) in zip(keys, layers.items(), strict=True)
        }
        memory = losses.init_contrast_memory(banks, examples, width)
        return cast(params, jnp.promote_types(jnp.float32, layers["student"].dtype)), memory

    def values(params, memory, seen: StepContext):
        batch, valid = seen.batch, jnp.asarray(seen.batch.valid)
        features = {
            "student": seen.student.features[student],
            "teacher": jax.lax.stop_gradient(seen.teachers[name].features[teacher]),
        }

        def embed(owner):
            return jnp.asarray(embedding.apply({"params": params[owner]}, flat(features[owner])))

        hard = (
            jnp.asarray(batch.labels)
            if batch.labels.ndim == 1
            else jnp.argmax(batch.labels, axis=-1)
        )
        drawn = losses.sample_negatives(
            seen.key, hard, jnp.asarray(order), jnp.asarray(starts), negatives
        )
        found, memory = losses.contrastive_representation(
            embed("student"),
            embed("teacher"),
            jnp.asarray(batch.index),
            drawn,
            memory,
            temperature=temperature,
            momentum=momentum,
            where=valid,
        )
        return masked_mean(found, valid), memory

    return Term("batch", values, site.view, init=init)
