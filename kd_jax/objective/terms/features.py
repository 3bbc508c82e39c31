"""Terms on hidden vectors and feature maps, mapped to the teacher's width by the knowledge mapping
network."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.losses.pooling import to_common_size
from kd_jax.models.network import cast
from kd_jax.models.projectors.projectors import build_projector
from kd_jax.objective.terms.hyperparameters import adopts, bind
from kd_jax.objective.terms.term import StepContext, Term, TermSpec

Layers = str | Sequence[str]


def layer_pairs(student: Layers, teacher: Layers) -> list[tuple[str, str]]:
    """The layers that are compared, one pair or several of one length.

    Raises:
      ValueError: if they differ in number.
    """
    ours, theirs = (
        (layers,) if isinstance(layers, str) else tuple(layers) for layers in (student, teacher)
    )
    if len(ours) != len(theirs) or not ours:
        raise ValueError(
            f"student and teacher must name layers in pairs, got {len(ours)} and {len(theirs)}"
        )
    return list(zip(ours, theirs, strict=True))


class ProjectedPair:
    """A pair of layers, the student's mapped and both brought to one size.

    Args:
      site: where the term stands.
      teacher: the teacher's name.
      layers: of student and teacher.
      mapping: a name of `kd_jax.models.projectors.projectors.PROJECTORS`, or None.

    Attributes:
      shapes: of what `read` gives.
    """

    def __init__(self, site: TermSpec, teacher: str, layers: tuple[str, str], mapping: str | None):
        self._teacher, self._layers = teacher, layers
        self._inner = site.feature(site.student, layers[0], "the student")
        outer = site.feature(site.teachers[teacher], layers[1], f"teacher {teacher!r}")
        self._network = build_projector(mapping, outer.shape[-1]) if mapping is not None else None
        if site.is_by_token(outer.shape):
            site.require_one_tokenizer(teacher)
        params = jax.eval_shape(self.init, jax.random.key(0))
        self.shapes = jax.eval_shape(
            lambda p, s, t: self._compared(p, s, t, None, None), params, self._inner, outer
        )

    def init(self, key: jax.Array) -> Any:
        """The mapping's parameters, in float32 or wider; `{}` without one."""
        if self._network is None:
            return {}
        example = jnp.zeros(self._inner.shape, self._inner.dtype)
        return cast(
            self._network.init(key, example)["params"],
            jnp.promote_types(jnp.float32, self._inner.dtype),
        )

    def _compared(self, params, student, teacher, where, axis_name):
        if student.ndim == teacher.ndim == 4:
            student, teacher = to_common_size(student, teacher)
        if self._network is not None:
            options = {"where": where, "axis_name": axis_name} if self._network.normalizes else {}
            # The mapping is left behind with its running statistics: only the batch's are ever
            # used.
            student, _ = self._network.apply(
                {"params": params}, student, **options, mutable=["batch_stats"]
            )
        return student, teacher

    def read(self, params: Any, seen: StepContext) -> tuple[jax.Array, jax.Array]:
        """The student's mapped layer and the teacher's."""
        student = seen.student.features[self._layers[0]]
        teacher = seen.teachers[self._teacher].features[self._layers[1]]
        return self._compared(
            params, student, teacher, jnp.asarray(seen.batch.valid), seen.axis_name
        )

    def require_equal_shapes(self) -> None:
        """Refuses a pair that can't be compared element by element.

        Raises:
          ValueError: with both layers and shapes.
        """
        ours, theirs = (shape.shape for shape in self.shapes)
        if ours != theirs:
            hint = " (a mapping would fit the widths)" if ours[:-1] == theirs[:-1] else ""
            raise ValueError(
                f"the student's {self._layers[0]!r} {ours} can't be compared with {self._teacher}'s"
                f" {self._layers[1]!r} {theirs}{hint}"
            )


def project_pairs(
    site: TermSpec, teacher: str, student: Layers, layers: Layers, mapping: str | None
) -> list[ProjectedPair]:
    """One `Mapped` for each pair of layers."""
    return [ProjectedPair(site, teacher, pair, mapping) for pair in layer_pairs(student, layers)]


def add(found: Sequence[jax.Array]) -> jax.Array:
    """The sum of the values of several pairs."""
    return functools.reduce(jnp.add, found)


def init_pairs(pairs: Sequence[ProjectedPair]) -> Callable[[jax.Array], tuple[Any, Any]]:
    """A term's `init`: the parameters of each pair's mapping under the pair's number."""

    def init(key: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(pairs))
        params = {str(i): pair.init(k) for i, (pair, k) in enumerate(zip(pairs, keys, strict=True))}
        return {name: found for name, found in params.items() if found}, {}

    return init


def sum_over_pairs(
    pairs: Sequence[ProjectedPair], bound: Sequence[Callable[..., jax.Array]]
) -> Callable[..., Any]:
    """A term's `values`: the sum of the loss over the pairs."""

    def values(params, memory, seen: StepContext):
        found = [
            loss(seen.step, *pair.read(params.get(str(i), {}), seen))
            for i, (pair, loss) in enumerate(zip(pairs, bound, strict=True))
        ]
        return add(found), memory

    return values


def of_vectors(loss: Callable[..., jax.Array]) -> Callable[..., Term]:
    """A term's constructor from a loss `(student [..., D], teacher [..., D]) -> [...]`.

    Options: `student` and `teacher`, a layer or several in pairs (their losses are added);
    `mapping`, of the student's layer to the teacher's width; `source`, the teacher where there are
    several. A layer with a vector for each token is averaged over the tokens that count, any other
    within each example first."""

    @adopts(loss)
    def build(
        site: TermSpec,
        *,
        student: Layers,
        teacher: Layers,
        mapping: str | None,
        source: str | None = None,
        **given: Any,
    ) -> Term:
        pairs = project_pairs(site, site.teacher(source), student, teacher, mapping)
        for pair in pairs:
            pair.require_equal_shapes()
        kinds = {site.is_by_token(pair.shapes[1].shape) for pair in pairs}
        if len(kinds) > 1:
            raise ValueError(
                "layers by token and layers by example can't be added in one term; make two terms of them"
            )
        bound = [bind(loss, given, *pair.shapes) for pair in pairs]
        kind = "token" if kinds == {True} else "example"
        return Term(kind, sum_over_pairs(pairs, bound), site.view, init=init_pairs(pairs))

    return build


def of_maps(loss: Callable[..., jax.Array], *, equal: bool = False) -> Callable[..., Term]:
    """A term's constructor from a loss `(student_map, teacher_map) -> [B]`; options as
    `of_vectors`, mapping optional.

    Text layers `[B, T, D]` are read as maps `[B, T, 1, D]` of which the tokens that count, count.
    """

    @adopts(loss)
    def build(
        site: TermSpec,
        *,
        student: Layers,
        teacher: Layers,
        mapping: str | None = None,
        source: str | None = None,
        **given: Any,
    ) -> Term:
        pairs = project_pairs(site, site.teacher(source), student, teacher, mapping)
        if equal:
            for pair in pairs:
                pair.require_equal_shapes()
        bound = [_on_maps(loss, given, site, pair) for pair in pairs]

        def values(params, memory, seen: StepContext):
            found = [
                each(seen.step, pair.read(params.get(str(i), {}), seen), seen)
                for i, (pair, each) in enumerate(zip(pairs, bound, strict=True))
            ]
            return add(found), memory

        return Term("example", values, site.view, init=init_pairs(pairs))

    return build


def _on_maps(
    loss: Callable[..., jax.Array], given: Any, site: TermSpec, pair: ProjectedPair
) -> Callable[..., jax.Array]:
    """The loss on one pair, `(step, (student, teacher), seen) -> [B]`."""
    by_token = [site.is_by_token(shape.shape) for shape in pair.shapes]

    def as_map(x):
        return jax.ShapeDtypeStruct((*x.shape[:2], 1, x.shape[2]), x.dtype) if all(by_token) else x

    bound = bind(loss, given, *(as_map(shape) for shape in pair.shapes))

    def on_pair(step: Any, maps: tuple[jax.Array, jax.Array], seen: StepContext) -> jax.Array:
        if not all(by_token):
            return bound(step, *maps)
        where = jnp.asarray(seen.batch.views[site.view]["attention_mask"]) > 0
        return bound(step, *(x[:, :, None] for x in maps), where=where[:, :, None])

    return on_pair


@adopts(losses.flow_of_solution)
def flow_of_solution(
    site: TermSpec,
    *,
    student: Sequence[str],
    teacher: Sequence[str],
    source: str | None = None,
    **given: Any,
) -> Term:
    """FSP between each layer named and the next; the channels of student and teacher must agree."""
    name = site.teacher(source)
    pairs = project_pairs(site, name, student, teacher, None)
    if isinstance(student, str) or len(pairs) < 2:
        raise ValueError("the flow of solution needs at least two layers of student and teacher")
    ours = [site.feature(site.student, layer, "the student") for layer in student]
    theirs = [site.feature(site.teachers[name], layer, f"teacher {name!r}") for layer in teacher]
    bound = [
        bind(losses.flow_of_solution, given, ours[i], ours[i + 1], theirs[i], theirs[i + 1])
        for i in range(len(pairs) - 1)
    ]

    def values(_params, memory, seen: StepContext):
        s = [seen.student.features[layer] for layer in student]
        t = [seen.teachers[name].features[layer] for layer in teacher]
        found = [loss(seen.step, s[i], s[i + 1], t[i], t[i + 1]) for i, loss in enumerate(bound)]
        return add(found), memory

    return Term("example", values, site.view)
