"""Terms on maps that bring parameters or facts of their own: VID, OFD, AB, ReviewKD, factor
transfer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.losses.pooling import to_common_size
from kd_jax.models.network import cast
from kd_jax.models.projectors.review_and_factors import Paraphraser, Review, Translator
from kd_jax.objective.terms.features import Layers, add, init_pairs, layer_pairs, project_pairs
from kd_jax.objective.terms.hyperparameters import adopts, bind
from kd_jax.objective.terms.term import StepContext, Term, TermSpec


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(jnp.float32, dtype)


@adopts(losses.variational)
def variational(
    site: TermSpec,
    *,
    student: Layers,
    teacher: Layers,
    mapping: str = "regressor",
    source: str | None = None,
    **given: Any,
) -> Term:
    """VID: the mapping predicts the teacher's map, and a variance for each channel is trained with
    it."""
    pairs = project_pairs(site, site.teacher(source), student, teacher, mapping)
    bound = []
    for pair in pairs:
        pair.require_equal_shapes()
        ours, theirs = pair.shapes
        scale = jax.ShapeDtypeStruct(theirs.shape[-1:], jnp.float32)
        bound.append(bind(losses.variational, given, ours, scale, theirs))
    init_mappings = init_pairs(pairs)

    def init(key: jax.Array) -> tuple[Any, Any]:
        mappings, _ = init_mappings(key)
        scales = {
            str(i): jnp.full(
                pair.shapes[1].shape[-1:], losses.VARIATIONAL_START, _wide(pair.shapes[0].dtype)
            )
            for i, pair in enumerate(pairs)
        }
        return {"mapping": mappings, "log_scale": scales}, {}

    def values(params, memory, seen: StepContext):
        found = []
        for i, (pair, loss) in enumerate(zip(pairs, bound, strict=True)):
            mean, target = pair.read(params["mapping"].get(str(i), {}), seen)
            found.append(loss(seen.step, mean, params["log_scale"][str(i)], target))
        return add(found), memory

    return Term("example", values, site.view, init=init)


@adopts(losses.overhaul)
def overhaul(
    site: TermSpec,
    *,
    student: Layers,
    teacher: Layers,
    mapping: str | None = "connector",
    source: str | None = None,
    **given: Any,
) -> Term:
    """OFD: maps before the ReLU; the teacher must give each layer's margin as the feature
    `<layer>_margin` [B, C]."""
    name = site.teacher(source)
    pairs, bound, margins = project_pairs(site, name, student, teacher, mapping), [], []
    for pair, (_, layer) in zip(pairs, layer_pairs(student, teacher), strict=True):
        pair.require_equal_shapes()
        margins.append(f"{layer}_margin")
        found = site.feature(site.teachers[name], margins[-1], f"teacher {name!r}")
        bound.append(
            bind(
                losses.overhaul,
                given,
                *pair.shapes,
                jax.ShapeDtypeStruct(found.shape[1:], found.dtype),
            )
        )

    def values(params, memory, seen: StepContext):
        found = [
            # The margin is the layer's own, the same in every row.
            loss(
                seen.step,
                *pair.read(params.get(str(i), {}), seen),
                seen.teachers[name].features[margin][0],
            )
            for i, (pair, loss, margin) in enumerate(zip(pairs, bound, margins, strict=True))
        ]
        return add(found), memory

    return Term("example", values, site.view, init=init_pairs(pairs))


@adopts(losses.hierarchical_context)
def review(
    site: TermSpec,
    *,
    student: Sequence[str],
    teacher: Sequence[str],
    middle: int = 64,
    source: str | None = None,
    **given: Any,
) -> Term:
    """ReviewKD: the student's maps, shallow to deep, fused by attention and compared at every
    scale."""
    name, pairs = site.teacher(source), layer_pairs(student, teacher)
    ours = tuple(site.feature(site.student, layer, "the student") for layer, _ in pairs)
    theirs = [site.feature(site.teachers[name], layer, f"teacher {name!r}") for _, layer in pairs]
    if (
        isinstance(student, str)
        or len(pairs) < 2
        or any(len(x.shape) != 4 for x in (*ours, *theirs))
    ):
        raise ValueError(
            "knowledge review needs at least two layers of student and teacher, all maps [B, H, W, C]"
        )
    network = Review(widths=tuple(x.shape[-1] for x in theirs), middle=middle)

    def example():
        return tuple(jnp.zeros(x.shape, x.dtype) for x in ours)

    def init(key: jax.Array) -> tuple[Any, Any]:
        return cast(network.init(key, example())["params"], _wide(ours[0].dtype)), {}

    fused, _ = jax.eval_shape(
        lambda key: network.init_with_output(key, example()), jax.random.key(0)
    )
    bound = [
        bind(losses.hierarchical_context, given, *jax.eval_shape(to_common_size, s, t))
        for s, t in zip(fused, theirs, strict=True)
    ]

    def values(params, memory, seen: StepContext):
        maps = tuple(seen.student.features[layer] for layer, _ in pairs)
        fused, _ = network.apply(
            {"params": params},
            maps,
            where=jnp.asarray(seen.batch.valid),
            axis_name=seen.axis_name,
            mutable=["batch_stats"],
        )
        found = [
            loss(seen.step, *to_common_size(s, seen.teachers[name].features[layer]))
            for loss, s, (_, layer) in zip(bound, fused, pairs, strict=True)
        ]
        return add(found), memory

    return Term("example", values, site.view, init=init)


@adopts(losses.factor_transfer)
def factor_transfer(
    site: TermSpec,
    *,
    student: str,
    teacher: str,
    rate: float = 0.5,
    reconstruction: float = 1.0,
    source: str | None = None,
    **given: Any,
) -> Term:
    """FT: factors of both maps, by an auto-encoder of the teacher's, which learns beside, and a
      translator.

    `rate` is the factors' share of the teacher's channels; `reconstruction` the weight of the
    auto-encoder's own squared error. The distillation's gradient reaches the translator and the
    student alone."""
    name = site.teacher(source)
    inner, outer = (
        site.feature(site.student, student, "the student"),
        site.feature(site.teachers[name], teacher, f"teacher {name!r}"),
    )
    if len(inner.shape) != 4 or len(outer.shape) != 4 or not 0 < rate <= 1 or reconstruction < 0:
        raise ValueError(
            f"factor transfer needs maps, rate in (0, 1] and reconstruction >= 0, got {inner.shape}, {outer.shape},"
            f" {rate}, {reconstruction}"
        )
    factors = max(1, round(rate * outer.shape[-1]))
    width = outer.shape[-1]
    networks = {
        "paraphraser": Paraphraser(width, factors),
        "translator": Translator(width, factors),
    }

    def init(key: jax.Array) -> tuple[Any, Any]:
        keys, shapes = jax.random.split(key), {"paraphraser": outer, "translator": inner}
        found = {
            part: networks[part].init(k, jnp.zeros(shapes[part].shape, inner.dtype))["params"]
            for part, k in zip(networks, keys, strict=True)
        }
        return cast(found, _wide(inner.dtype)), {}

    def factor(x):
        return jax.ShapeDtypeStruct((*x.shape[:3], factors), jnp.float32)

    bound = bind(losses.factor_transfer, given, factor(inner), factor(outer))

    def values(params, memory, seen: StepContext):
        options: dict[str, Any] = {
            "where": jnp.asarray(seen.batch.valid),
            "axis_name": seen.axis_name,
        }

        def apply(part, x):
            return networks[part].apply(
                {"params": params[part]}, x, **options, mutable=["batch_stats"]
            )[0]

        target = jax.lax.stop_gradient(seen.teachers[name].features[teacher])
        theirs, rebuilt = apply("paraphraser", target)
        ours = apply("translator", seen.student.features[student])
        error = jnp.mean(losses.hidden_mse(rebuilt, target), axis=(1, 2))
        return bound(seen.step, ours, theirs) + reconstruction * error, memory

    return Term("example", values, site.view, init=init)
