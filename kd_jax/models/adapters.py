"""Models as users bring them: Linen modules, NNX modules and plain functions, as `ForwardFn`s.

None of them has to follow a contract of ours. A module returns logits, or logits and a mapping of
features, or an object with `logits`. Features that it doesn't return are found by the path of the
submodule that computes them ("block_1/dense"): Linen captures them as intermediates, NNX sows them.
What no term reads costs nothing under jit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from kd_jax.core.types import Array, Batch, ModelOutput, PyTree, Variables
from kd_jax.models.calls import accepted, arguments, as_output, by_path, mode
from kd_jax.models.network import cast

OTHER_STATE: Any = nnx.Not(nnx.Any(nnx.Param, nnx.RngState, nnx.Intermediate))
"""What an NNX module holds beside parameters: running statistics, and what users keep."""

COLLECTIONS = "collections"
"""Key under which several collections of a Linen module are kept beside its parameters."""


@dataclass(frozen=True, eq=False)
class LinenModel:
    """A user's Linen module.

    Attributes:
      module: the module; its call takes the inputs and, if it likes, `train` (or `training`,
        `deterministic`), and, with batch normalization of ours, `where` and `axis_name`.
      view: name of the inputs in a batch.
      initial: variables to start from, or None for new ones.
      dtype: of the parameters that are kept: at least float32.
    """

    module: nn.Module
    view: str = "inputs"
    initial: Variables | None = field(default=None, repr=False)
    dtype: Any = jnp.float32

    def init(self, key: jax.Array, batch: Batch) -> dict[str, PyTree]:
        """Returns the given variables, or new ones; `batch` gives the shapes."""
        if self.initial is not None:
            return self.stored(self.initial)
        args, kwargs = arguments(batch.views[self.view])
        kwargs |= mode(accepted(type(self.module).__call__), train=False)
        # Modes choose a branch in Python, so they must not be traced.
        fixed = {name: kwargs.pop(name) for name in list(kwargs) if isinstance(kwargs[name], bool)}

        def init(key: jax.Array, args: Any, kwargs: Any) -> Any:
            rngs = {"params": key, "dropout": key}
            return self.module.init(rngs, *args, **kwargs, **fixed)

        return self.stored(jax.jit(init)(key, args, kwargs))

    def stored(self, variables: Variables) -> dict[str, PyTree]:
        """Returns the variables as they are optimized: parameters in at least float32.

        What isn't `params` is kept as `batch_stats`, also where it is of several collections.
        """
        # Intermediates are made anew by every call, so they are no state.
        others = {k: v for k, v in variables.items() if k not in ("params", "intermediates") and v}
        packed = {"params": variables.get("params", {})}
        if others:
            packed["batch_stats"] = _packed(others)
        return jax.tree.map(jnp.asarray, cast_up(packed))

    def frozen(self, variables: Variables) -> Variables:
        """Returns the variables as a teacher holds them: as they are."""
        # A frozen teacher is not optimized, so it may keep narrow parameters.
        return variables

    def unpacked(self, variables: Variables) -> dict[str, PyTree]:
        """Returns variables as the module itself takes them; the inverse of `stored`."""
        return {"params": variables["params"], **_unpacked(variables.get("batch_stats", {}))}

    def __call__(self, variables: Variables, batch: Batch) -> ModelOutput:
        """Evaluates the model: no dropout, stored statistics."""
        return self._apply(variables, batch, train=False)[0]

    def train(
        self,
        variables: Variables,
        batch: Batch,
        *,
        dropout_key: jax.Array,
        axis_name: str | None,
        signal: Array | None = None,
    ) -> tuple[ModelOutput, PyTree]:
        """Applies the model in training mode; returns its output and new statistics."""
        _refuse_signal(signal)
        return self._apply(
            variables, batch, train=True, dropout_key=dropout_key, axis_name=axis_name
        )

    def _apply(self, variables, batch, *, train, dropout_key=None, axis_name=None):
        names = accepted(type(self.module).__call__)
        args, kwargs = arguments(batch.views[self.view])
        kwargs |= mode(names, train=train)
        held = self.unpacked(variables)
        others = [name for name in held if name != "params"]
        # A module with running statistics may want to know which rows count.
        if train and others:
            known = {"where": batch.valid, "axis_name": axis_name}
            kwargs |= {name: value for name, value in known.items() if name in names}
        rngs = {"dropout": dropout_key} if dropout_key is not None else None
        applied: Any = self.module.apply(
            held,
            *args,
            **kwargs,
            rngs=rngs,
            capture_intermediates=True,
            mutable=["intermediates", *(others if train else ())],
        )
        found, changed = applied
        captured = by_path(dict(changed.pop("intermediates", {})))
        # In evaluation nothing is mutable, so the old values are returned.
        kept = {name: changed.get(name, held[name]) for name in others}
        output = as_output(found, captured, f"the module {type(self.module).__name__}")
        return output, _packed(kept)


def _packed(collections: Mapping[str, Any]) -> Any:
    """Packs the collections beside `params` into one tree; BatchNorm's alone is kept as it is."""
    # The common case keeps the layout that checkpoints of ours have.
    if set(collections) <= {"batch_stats"}:
        return collections.get("batch_stats", {})
    return {COLLECTIONS: dict(collections)}


def _unpacked(tree: Mapping[str, Any]) -> dict[str, Any]:
    if set(tree) == {COLLECTIONS}:
        return dict(tree[COLLECTIONS])
    return {"batch_stats": tree} if tree else {}


@dataclass(frozen=True, eq=False)
class NnxModel:
    """A user's NNX module, split into its definition and its state; the module itself is left
    alone.

    Attributes:
      module: the module.
      view: name of the inputs in a batch.
    """

    module: nnx.Module
    view: str = "inputs"

    def init(self, _key: jax.Array, _batch: Batch | None = None) -> dict[str, PyTree]:
        """Returns the module's own parameters and other state, copied."""
        model = _evaluated(self.module)
        own = {"params": nnx.to_pure_dict(nnx.state(model, nnx.Param))}
        # Streams of random numbers are made anew in every step, so they are no state of training.
        own["batch_stats"] = nnx.to_pure_dict(nnx.state(model, OTHER_STATE))
        return self.stored({name: tree for name, tree in own.items() if tree or name == "params"})

    def stored(self, variables: Variables) -> dict[str, PyTree]:
        """Returns the variables as they are optimized: parameters in at least float32."""
        # A copy, since a training step may take over these buffers and the module keeps its own.
        return jax.tree.map(jnp.array, cast_up(dict(variables)))

    def frozen(self, variables: Variables) -> Variables:
        """Returns the variables as a teacher holds them: as they are."""
        return variables

    def merged(self, variables: Variables, *, train: bool = False) -> nnx.Module:
        """Returns a module of this definition that holds the variables."""
        # The user's own module is never changed.
        model = nnx.clone(self.module)
        _set_state(model, variables["params"], nnx.Param)
        if variables.get("batch_stats"):
            _set_state(model, variables["batch_stats"], OTHER_STATE)
        # NNX keeps the mode in the module's attributes, not in the arguments of its call.
        if train:
            model.train()
        else:
            model.eval()
        return model

    def __call__(self, variables: Variables, batch: Batch) -> ModelOutput:
        """Evaluates the model: no dropout, running averages."""
        return self._apply(self.merged(variables), batch)

    def train(
        self,
        variables: Variables,
        batch: Batch,
        *,
        dropout_key: jax.Array,
        axis_name: str | None,  # noqa: ARG002 - one signature for all models
        signal: Array | None = None,
    ) -> tuple[ModelOutput, PyTree]:
        """Applies the model in training mode; returns its output and new statistics."""
        _refuse_signal(signal)
        model = self.merged(variables, train=True)
        # All that is drawn follows the step's key, so that a resumed run draws the same.
        nnx.reseed(model, default=dropout_key)
        output = self._apply(model, batch)
        # A step's output must have one structure, so no empty state appears from nowhere.
        if "batch_stats" not in variables:
            return output, {}
        rest = nnx.state(model, OTHER_STATE)
        return output, nnx.to_pure_dict(rest)

    def _apply(self, model: nnx.Module, batch: Batch) -> ModelOutput:
        args, kwargs = arguments(batch.views[self.view])
        # Every submodule's output is captured, so features are found by path; unused ones cost
        # nothing.
        call: Any = nnx.capture(model, nnx.Intermediate, method_outputs=nnx.Intermediate)
        found, intermediates = call(*args, **kwargs)
        captured = by_path(nnx.to_pure_dict(intermediates))
        return as_output(found, captured, f"the module {type(self.module).__name__}")


def _evaluated(module: nnx.Module) -> nnx.Module:
    # `eval` changes a module in place, and the user's own is left alone.
    model = nnx.clone(module)
    model.eval()
    return model


def _set_state(model: nnx.Module, pure: Any, kind: Any) -> None:
    # Leaves are put into the module's own state, since plain dicts don't say which kind they are.
    state = nnx.state(model, kind)
    nnx.replace_by_pure_dict(state, pure)
    nnx.update(model, state)


@dataclass(frozen=True, eq=False)
class FunctionModel:
    """A user's function of the inputs, as a teacher: it has no variables of its own.

    Attributes:
      function: inputs -> logits, `(logits, features)` or an object with logits; traceable by jax.
      view: name of the inputs in a batch.
    """

    function: Callable[..., Any]
    view: str = "inputs"

    def init(self, _key: jax.Array, _batch: Batch | None = None) -> dict[str, PyTree]:
        """Returns no variables."""
        return {}

    def frozen(self, variables: Variables) -> Variables:
        """Returns the variables as they are."""
        return variables

    def __call__(self, _variables: Variables, batch: Batch) -> ModelOutput:
        """Calls the function."""
        args, kwargs = arguments(batch.views[self.view])
        return as_output(self.function(*args, **kwargs), {}, "the teacher's function")


def cast_up(tree: PyTree) -> PyTree:
    """Returns floating-point leaves in float32 where they are narrower; the others as they are."""

    def wide(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        # float64 is kept where the user chose it.
        return cast(leaf, jnp.promote_types(jnp.float32, leaf.dtype))

    return jax.tree.map(wide, tree)


def _refuse_signal(signal: Array | None) -> None:
    if signal is not None:
        raise ValueError("only models of kd_jax.models can be conditioned on a teacher's output")
