"""Terms on maps that bring parameters or facts of their own: VID, OFD, ReviewKD, factor
transfer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.core.types import PyTree
from kd_jax.losses.pooling import to_common_size
from kd_jax.models.network import cast
from kd_jax.models.projectors import review_and_factors
from kd_jax.objective.terms.features import LayerTerm, add, init_pairs, layer_pairs
from kd_jax.objective.terms.hyperparameters import Settings
from kd_jax.objective.terms.term import BoundTerm, LossTerm, StepContext, TermSpec, TermValues


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(jnp.float32, dtype)


@dataclass(frozen=True, kw_only=True)
class Variational(LayerTerm):
    """The projector predicts the teacher's map, with a trained variance a channel (VID, 2019)."""

    loss = staticmethod(losses.variational)
    mapping: str | None = "regressor"

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers, shapes and hyperparameters; see `Term.bind`."""
        pairs, settings = self.pairs(spec, self.mapping), []
        for pair in pairs:
            pair.require_equal_shapes()
            ours, theirs = pair.shapes
            # One variance a channel, as in the paper.
            scale = jax.ShapeDtypeStruct(theirs.shape[-1:], jnp.float32)
            settings.append(Settings(self.loss, self.hyperparameters(), ours, scale, theirs))
        # The variances are trained beside the projectors.
        init_projectors = init_pairs(pairs)

        def init(key: jax.Array) -> tuple[Any, Any]:
            projectors, _ = init_projectors(key)
            scales = {
                str(i): jnp.full(
                    pair.shapes[1].shape[-1:],
                    losses.VARIATIONAL_START,
                    _wide(pair.shapes[0].dtype),
                )
                for i, pair in enumerate(pairs)
            }
            return {"mapping": projectors, "log_scale": scales}, {}

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            found = []
            for i, (pair, each) in enumerate(zip(pairs, settings, strict=True)):
                mean, target = pair.read(params["mapping"].get(str(i), {}), context)
                scale = params["log_scale"][str(i)]
                found.append(losses.variational(mean, scale, target, **each.at(context.step)))
            return add(found), state

        return BoundTerm("example", compute, spec.view, init=init)


@dataclass(frozen=True, kw_only=True)
class Overhaul(LayerTerm):
    """Partial distance of maps before the ReLU (OFD, 2019).

    The teacher must give each layer's margin as the feature `<layer>_margin` [B, C].
    """

    loss = staticmethod(losses.overhaul)
    mapping: str | None = "connector"

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers, margins, shapes and hyperparameters; see `Term.bind`."""
        name = spec.teacher(self.source)
        pairs, settings, margins = self.pairs(spec, self.mapping), [], []
        layers = layer_pairs(self.student, self.teacher)
        for pair, (_, layer) in zip(pairs, layers, strict=True):
            pair.require_equal_shapes()
            # Models of ours give the margin, which they know from their BatchNorm, beside the map.
            margins.append(f"{layer}_margin")
            found = spec.feature(spec.teachers[name], margins[-1], f"teacher {name!r}")
            margin = jax.ShapeDtypeStruct(found.shape[1:], found.dtype)
            settings.append(Settings(self.loss, self.hyperparameters(), *pair.shapes, margin))

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            found = [
                # The margin is the layer's own, the same in every row.
                losses.overhaul(
                    *pair.read(params.get(str(i), {}), context),
                    context.teachers[name].features[margin][0],
                    **each.at(context.step),
                )
                for i, (pair, each, margin) in enumerate(zip(pairs, settings, margins, strict=True))
            ]
            return add(found), state

        return BoundTerm("example", compute, spec.view, init=init_pairs(pairs))


@dataclass(frozen=True, kw_only=True)
class Review(LossTerm):
    """The student's maps, fused by attention and compared at every scale (ReviewKD, 2021).

    Attributes:
      student: two layers of maps or more, shallow to deep.
      teacher: as many layers of the teacher.
      middle: channels in which the maps are fused.
      source: the teacher's name, where there are several.
    """

    loss = staticmethod(losses.hierarchical_context)
    student: Sequence[str]
    teacher: Sequence[str]
    middle: int = 64

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers and shapes; see `Term.bind`."""
        name, pairs = spec.teacher(self.source), layer_pairs(self.student, self.teacher)
        ours = tuple(spec.feature(spec.student, layer, "the student") for layer, _ in pairs)
        theirs = [
            spec.feature(spec.teachers[name], layer, f"teacher {name!r}") for _, layer in pairs
        ]
        one = isinstance(self.student, str) or len(pairs) < 2
        if one or any(len(x.shape) != 4 for x in (*ours, *theirs)):
            raise ValueError(
                "knowledge review needs at least two layers of student and teacher, all maps"
                " [B, H, W, C]"
            )
        # Fused maps take the teacher's widths, so that they can be compared at every scale.
        widths = tuple(x.shape[-1] for x in theirs)
        # One network for all layers, since each fused map needs the deeper one.
        network = review_and_factors.Review(widths=widths, middle=self.middle)

        def example():
            return tuple(jnp.zeros(x.shape, x.dtype) for x in ours)

        def init(key: jax.Array) -> tuple[Any, Any]:
            return cast(network.init(key, example())["params"], _wide(ours[0].dtype)), {}

        fused, _ = jax.eval_shape(
            lambda key: network.init_with_output(key, example()), jax.random.key(0)
        )
        settings = [
            Settings(self.loss, self.hyperparameters(), *jax.eval_shape(to_common_size, s, t))
            for s, t in zip(fused, theirs, strict=True)
        ]

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            maps = tuple(context.student.features[layer] for layer, _ in pairs)
            fused, _ = network.apply(
                {"params": params},
                maps,
                where=jnp.asarray(context.batch.valid),
                axis_name=context.axis_name,
                mutable=["batch_stats"],
            )
            found = []
            for each, s, (_, layer) in zip(settings, fused, pairs, strict=True):
                # Student and teacher may halve the size at other layers.
                both = to_common_size(s, context.teachers[name].features[layer])
                found.append(losses.hierarchical_context(*both, **each.at(context.step)))
            return add(found), state

        return BoundTerm("example", compute, spec.view, init=init)


@dataclass(frozen=True, kw_only=True)
class FactorTransfer(LossTerm):
    """Factors of both maps, by an auto-encoder of the teacher's and a translator (FT, 2018).

    The distillation's gradient reaches the translator and the student alone; the auto-encoder
    learns by its own squared error.

    Attributes:
      student: a layer of maps.
      teacher: a layer of the teacher.
      rate: the factors' share of the teacher's channels, in (0, 1].
      reconstruction: weight of the auto-encoder's error.
      source: the teacher's name, where there are several.
    """

    loss = staticmethod(losses.factor_transfer)
    student: str
    teacher: str
    rate: float = 0.5
    reconstruction: float = 1.0

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers and hyperparameters; see `Term.bind`."""
        name = spec.teacher(self.source)
        inner = spec.feature(spec.student, self.student, "the student")
        outer = spec.feature(spec.teachers[name], self.teacher, f"teacher {name!r}")
        maps = len(inner.shape) == len(outer.shape) == 4
        if not maps or not 0 < self.rate <= 1 or self.reconstruction < 0:
            raise ValueError(
                "factor transfer needs maps, rate in (0, 1] and reconstruction >= 0, got"
                f" {inner.shape}, {outer.shape}, {self.rate}, {self.reconstruction}"
            )
        width = outer.shape[-1]
        factors = max(1, round(self.rate * width))
        networks = {
            "paraphraser": review_and_factors.Paraphraser(width, factors),
            "translator": review_and_factors.Translator(width, factors),
        }

        def init(key: jax.Array) -> tuple[Any, Any]:
            keys, shapes = jax.random.split(key), {"paraphraser": outer, "translator": inner}
            found = {
                part: networks[part].init(k, jnp.zeros(shapes[part].shape, inner.dtype))["params"]
                for part, k in zip(networks, keys, strict=True)
            }
            return cast(found, _wide(inner.dtype)), {}

        def factor(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*x.shape[:3], factors), jnp.float32)

        settings = Settings(self.loss, self.hyperparameters(), factor(inner), factor(outer))

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            options: dict[str, Any] = {
                "where": jnp.asarray(context.batch.valid),
                "axis_name": context.axis_name,
            }

            def apply(part, x):
                variables = {"params": params[part]}
                return networks[part].apply(variables, x, **options, mutable=["batch_stats"])[0]

            target = jax.lax.stop_gradient(context.teachers[name].features[self.teacher])
            theirs, rebuilt = apply("paraphraser", target)
            ours = apply("translator", context.student.features[self.student])
            error = jnp.mean(losses.hidden_mse(rebuilt, target), axis=(1, 2))
            values = losses.factor_transfer(ours, theirs, **settings.at(context.step))
            return values + self.reconstruction * error, state

        return BoundTerm("example", compute, spec.view, init=init)
