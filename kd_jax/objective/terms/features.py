"""Terms on hidden vectors and feature maps; a projector brings them to the teacher's width."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.core.types import PyTree
from kd_jax.losses.pooling import to_common_size
from kd_jax.models.network import cast
from kd_jax.models.projectors.projectors import build_projector
from kd_jax.objective.terms.hyperparameters import Hyperparameter, Settings
from kd_jax.objective.terms.term import BoundTerm, LossTerm, StepContext, TermSpec, TermValues

Layers = str | Sequence[str]


def layer_pairs(student: Layers, teacher: Layers) -> list[tuple[str, str]]:
    """Returns the pairs of layers that are compared, student's and teacher's.

    Raises:
      ValueError: if they differ in number.
    """
    ours, theirs = (
        (layers,) if isinstance(layers, str) else tuple(layers) for layers in (student, teacher)
    )
    # zip alone would drop the layers without a partner in silence.
    if len(ours) != len(theirs) or not ours:
        raise ValueError(
            f"student and teacher must name layers in pairs, got {len(ours)} and {len(theirs)}"
        )
    return list(zip(ours, theirs, strict=True))


class ProjectedPair:
    """A pair of layers, the student's projected and both brought to one size.

    Args:
      spec: what the term may read.
      teacher: the teacher's name.
      layers: of student and teacher.
      mapping: a name of `kd_jax.models.projectors.projectors.PROJECTORS`, or None.

    Attributes:
      shapes: of what `read` gives.
    """

    def __init__(self, spec: TermSpec, teacher: str, layers: tuple[str, str], mapping: str | None):
        self._teacher, self._layers = teacher, layers
        self._inner = spec.feature(spec.student, layers[0], "the student")
        outer = spec.feature(spec.teachers[teacher], layers[1], f"teacher {teacher!r}")
        self._network = build_projector(mapping, outer.shape[-1]) if mapping is not None else None
        # Positions of two tokenizers don't correspond.
        if spec.is_by_token(outer.shape):
            spec.require_one_tokenizer(teacher)
        # Shapes after projection and pooling are what the loss will see.
        params = jax.eval_shape(self.init, jax.random.key(0))
        self.shapes = jax.eval_shape(
            lambda p, s, t: self._compared(p, s, t, None, None), params, self._inner, outer
        )

    def init(self, key: jax.Array) -> Any:
        """Returns the projector's parameters, in float32 or wider; `{}` without one."""
        if self._network is None:
            return {}
        example = jnp.zeros(self._inner.shape, self._inner.dtype)
        return cast(
            self._network.init(key, example)["params"],
            jnp.promote_types(jnp.float32, self._inner.dtype),
        )

    def _compared(self, params, student, teacher, where, axis_name):
        # Maps of one resolution are needed; the larger one is averaged down.
        if student.ndim == teacher.ndim == 4:
            student, teacher = to_common_size(student, teacher)
        if self._network is not None:
            options = {"where": where, "axis_name": axis_name} if self._network.normalizes else {}
            # A projector never runs in evaluation mode, so its running statistics are dropped.
            student, _ = self._network.apply(
                {"params": params}, student, **options, mutable=["batch_stats"]
            )
        return student, teacher

    def read(self, params: Any, context: StepContext) -> tuple[jax.Array, jax.Array]:
        """Returns the student's projected layer and the teacher's, of a microbatch."""
        student = context.student.features[self._layers[0]]
        teacher = context.teachers[self._teacher].features[self._layers[1]]
        return self._compared(
            params, student, teacher, jnp.asarray(context.batch.valid), context.axis_name
        )

    def require_equal_shapes(self) -> None:
        """Refuses a pair that can't be compared element by element.

        Raises:
          ValueError: with both layers and shapes.
        """
        ours, theirs = (shape.shape for shape in self.shapes)
        if ours != theirs:
            # Only a difference in the last axis is what a projector can mend.
            hint = " (a mapping would fit the widths)" if ours[:-1] == theirs[:-1] else ""
            raise ValueError(
                f"the student's {self._layers[0]!r} {ours} can't be compared with {self._teacher}'s"
                f" {self._layers[1]!r} {theirs}{hint}"
            )


def project_pairs(
    spec: TermSpec, teacher: str, student: Layers, layers: Layers, mapping: str | None
) -> list[ProjectedPair]:
    """Returns one `ProjectedPair` for each pair of layers."""
    return [ProjectedPair(spec, teacher, pair, mapping) for pair in layer_pairs(student, layers)]


def add(found: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of the values of several pairs."""
    return functools.reduce(jnp.add, found)


def init_pairs(pairs: Sequence[ProjectedPair]) -> Callable[[jax.Array], tuple[Any, Any]]:
    """Returns a term's `init`: the parameters of each pair's projector under the pair's number."""

    def init(key: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(pairs))
        params = {str(i): pair.init(k) for i, (pair, k) in enumerate(zip(pairs, keys, strict=True))}
        return {name: found for name, found in params.items() if found}, {}

    return init


@dataclass(frozen=True, kw_only=True)
class LayerTerm(LossTerm):
    """A loss of layers in pairs; several pairs' losses are added.

    Attributes:
      student: a layer of the student, or several.
      teacher: as many layers of the teacher, in the same order.
      source: the teacher's name, where there are several.
    """

    student: Layers
    teacher: Layers

    def pairs(self, spec: TermSpec, mapping: str | None) -> list[ProjectedPair]:
        """Returns the pairs of layers, the student's projected by the projector of that name."""
        name = spec.teacher(self.source)
        return project_pairs(spec, name, self.student, self.teacher, mapping)


@dataclass(frozen=True, kw_only=True)
class VectorTerm(LayerTerm):
    """A loss `(student [..., D], teacher [..., D]) -> [...]` of hidden vectors.

    A layer with a vector for each token is averaged over the tokens that count, any other within
    each example first.

    Attributes:
      student: a layer of the student, or several.
      teacher: as many layers of the teacher, in the same order; their losses are added.
      mapping: name of the projector from the student's layer to the teacher's width, or None.
      source: the teacher's name, where there are several.
    """

    mapping: str | None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers, shapes and hyperparameters; see `Term.bind`."""
        pairs = self.pairs(spec, self.mapping)
        for pair in pairs:
            pair.require_equal_shapes()
        # One mask serves the whole term.
        kinds = {spec.is_by_token(pair.shapes[1].shape) for pair in pairs}
        if len(kinds) > 1:
            raise ValueError(
                "layers by token and layers by example can't be added in one term; make two terms"
                " of them"
            )
        given, loss = self.hyperparameters(), self.loss
        settings = [Settings(loss, given, *pair.shapes) for pair in pairs]

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            found = [
                loss(*pair.read(params.get(str(i), {}), context), **each.at(context.step))
                for i, (pair, each) in enumerate(zip(pairs, settings, strict=True))
            ]
            return add(found), state

        kind = "token" if kinds == {True} else "example"
        return BoundTerm(kind, compute, spec.view, init=init_pairs(pairs))


@dataclass(frozen=True, kw_only=True)
class MapTerm(LayerTerm):
    """A loss `(student_map, teacher_map) -> [B]` of feature maps.

    Text layers `[B, T, D]` are read as maps `[B, T, 1, D]`; padding is left out.

    Attributes:
      student: a layer of the student, or several.
      teacher: as many layers of the teacher, in the same order; their losses are added.
      mapping: name of the projector from the student's layer to the teacher's width, or None.
      source: the teacher's name, where there are several.
      equal: whether both maps must have one shape; of the class of terms.
    """

    equal: ClassVar[bool] = False
    mapping: str | None = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers, shapes and hyperparameters; see `Term.bind`."""
        pairs = self.pairs(spec, self.mapping)
        if self.equal:
            for pair in pairs:
                pair.require_equal_shapes()
        given, loss = self.hyperparameters(), self.loss
        by_token = [all(spec.is_by_token(shape.shape) for shape in pair.shapes) for pair in pairs]
        settings = [
            Settings(loss, given, *(_as_map(shape) if tokens else shape for shape in pair.shapes))
            for pair, tokens in zip(pairs, by_token, strict=True)
        ]

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            found = []
            for i, (pair, each, tokens) in enumerate(zip(pairs, settings, by_token, strict=True)):
                maps = pair.read(params.get(str(i), {}), context)
                options = each.at(context.step)
                if tokens:
                    mask = jnp.asarray(context.batch.views[spec.view]["attention_mask"]) > 0
                    # Tokens are a map of one column, so that losses of maps serve texts too.
                    maps, options["where"] = tuple(x[:, :, None] for x in maps), mask[:, :, None]
                found.append(loss(*maps, **options))
            return add(found), state

        return BoundTerm("example", compute, spec.view, init=init_pairs(pairs))


def _as_map(shape: Any) -> jax.ShapeDtypeStruct:
    """Reshapes `[B, T, D]` to `[B, T, 1, D]`."""
    return jax.ShapeDtypeStruct((*shape.shape[:2], 1, shape.shape[2]), shape.dtype)


@dataclass(frozen=True, kw_only=True)
class HiddenMSE(VectorTerm):
    """Mean squared difference of hidden vectors (FitNets, 2015; TinyBERT, 2020)."""

    loss = staticmethod(losses.hidden_mse)


@dataclass(frozen=True, kw_only=True)
class CosineDistance(VectorTerm):
    """One minus the cosine of hidden vectors (DistilBERT, 2019)."""

    loss = staticmethod(losses.cosine_distance)


@dataclass(frozen=True, kw_only=True)
class NormalizedMSE(VectorTerm):
    """Squared distance of vectors scaled to length 1 (patient knowledge distillation, 2019)."""

    loss = staticmethod(losses.normalized_mse)


@dataclass(frozen=True, kw_only=True)
class AttentionTransfer(MapTerm):
    """Mean squared difference of spatial attention maps (attention transfer, 2017).

    Attributes:
      p: power of the activations, at least 1; larger looks at the strongest ones alone.
    """

    loss = staticmethod(losses.attention_transfer)
    p: int = 2


@dataclass(frozen=True, kw_only=True)
class NeuronSelectivity(MapTerm):
    """Discrepancy of the channels' activation patterns (neuron selectivity transfer, 2017)."""

    loss = staticmethod(losses.neuron_selectivity)


@dataclass(frozen=True, kw_only=True)
class ActivationBoundary(MapTerm):
    """A hinge on responses before the ReLU (activation boundaries, 2019).

    Attributes:
      margin: how far beyond zero a response must be, > 0; a number or a schedule.
    """

    loss = staticmethod(losses.activation_boundary)
    equal: ClassVar[bool] = True
    margin: Hyperparameter = 1.0


@dataclass(frozen=True, kw_only=True)
class HierarchicalContext(MapTerm):
    """Squared differences at several scales (ReviewKD's loss without its fusion, 2021)."""

    loss = staticmethod(losses.hierarchical_context)
    equal: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class FlowOfSolution(LossTerm):
    """Squared difference of the Gram matrices between each layer and the next (FSP, 2017).

    Attributes:
      student: two layers of the student or more.
      teacher: as many of the teacher; the channels must agree.
      source: the teacher's name, where there are several.
    """

    loss = staticmethod(losses.flow_of_solution)
    student: Sequence[str]
    teacher: Sequence[str]

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers and shapes; see `Term.bind`."""
        name, student, teacher = spec.teacher(self.source), self.student, self.teacher
        pairs = project_pairs(spec, name, student, teacher, None)
        # A flow leads from one layer to the next.
        if isinstance(student, str) or len(pairs) < 2:
            raise ValueError(
                "the flow of solution needs at least two layers of student and teacher"
            )
        ours = [spec.feature(spec.student, layer, "the student") for layer in student]
        theirs = [
            spec.feature(spec.teachers[name], layer, f"teacher {name!r}") for layer in teacher
        ]
        settings = [
            Settings(
                self.loss, self.hyperparameters(), ours[i], ours[i + 1], theirs[i], theirs[i + 1]
            )
            for i in range(len(pairs) - 1)
        ]

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            s = [context.student.features[layer] for layer in student]
            t = [context.teachers[name].features[layer] for layer in teacher]
            found = [
                losses.flow_of_solution(s[i], s[i + 1], t[i], t[i + 1], **each.at(context.step))
                for i, each in enumerate(settings)
            ]
            return add(found), state

        return BoundTerm("example", compute, spec.view)
