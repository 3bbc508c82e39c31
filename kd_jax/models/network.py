"""A module together with the view it reads and the dtype it computes in: what student and teacher
have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.core.pytree import leaves_by_path
from kd_jax.core.types import Array, Batch, ModelOutput, PyTree, Variables, View
from kd_jax.models import windows
from kd_jax.models.calls import accepted, as_output, mode
from kd_jax.models.layers import logical_axes

DTYPES = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
    "float16": jnp.float16,
    "float64": jnp.float64,
}


WORDS = "word_embeddings"
"""Name of the table of word embeddings in every text network."""


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """Casts floating-point leaves to `dtype`; the others stay as they are."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


@contextmanager
def _changed_embeddings(change: Callable[..., Any] | None, reason: str) -> Iterator[None]:
    """Changes what the table of word embeddings returns, within this context.

    Every text network of ours looks its words up in a module named `word_embeddings`, so none has
    to know of mixing or conditioning.

    Args:
      change: `(embeddings [B, T, D], look_up) -> [B, T, D]`; None changes nothing.
      reason: who asks for it, for the message.

    Raises:
      ValueError: if the network has no such table: its words would silently stay as they are while
        its labels are mixed, or its condition would be ignored.
    """
    if change is None:
        yield
        return
    # Counted, so that a network which looks its words up elsewhere is noticed.
    found = 0

    def intercept(look_up, arguments, options, context):
        nonlocal found
        embeddings = look_up(*arguments, **options)
        # Every method of every module comes by; only the lookup is changed, not the tied head.
        if context.module.name != WORDS or context.method_name != "__call__":
            return embeddings
        found += 1
        return change(embeddings, look_up)

    with nn.intercept_methods(intercept):
        yield
    if not found:
        raise ValueError(
            f"{reason} changes word embeddings, and the network has no module named {WORDS!r} that"
            " looks them up"
        )


def _unmixed(view: View) -> tuple[dict[str, Any], Callable[..., Any] | None]:
    """Returns the module's arguments, and how a text's embeddings are mixed with its partner's."""
    if "partner_ids" not in view:
        return dict(view), None
    # The module knows nothing of mixing, so its arguments must not name it.
    own = {name: array for name, array in view.items() if name not in ("partner_ids", "weight")}
    weight = jnp.asarray(view["weight"])[:, None, None]

    def mix(embeddings, look_up):
        # Cast, so that a float32 weight doesn't widen embeddings in bfloat16.
        share = weight.astype(embeddings.dtype)
        return share * embeddings + (1 - share) * look_up(view["partner_ids"])

    return own, mix


def _conditioned(
    inputs: dict[str, Any], signal: Array | None
) -> tuple[dict[str, Any], Callable[..., Any] | None]:
    """Returns the module's arguments with a signal added to images, or how word embeddings
    get it.
    """
    if signal is None:
        return inputs, None
    # Images are changed themselves; of texts the word embeddings are, since ids can't be added to.
    if "images" in inputs:
        return inputs | {"images": jnp.asarray(inputs["images"]) + signal}, None
    vector = jnp.asarray(signal)[:, None, :]
    return inputs, lambda embeddings, _look_up: embeddings + vector.astype(embeddings.dtype)


# Compared by identity, since jax hashes what a compiled program is made of.
@dataclass(frozen=True, eq=False)
class Network:
    """A module, the view it reads and the dtype it computes in: how a model is applied to a batch.

    Attributes:
      module: a Linen module of `kd_jax.models`, or a registered one.
      view: name of the view it reads.
      dtype: it computes in this dtype; parameters are kept in at least float32.
      replicated: whether it is whole on each device, also under tensor parallelism.
    """

    module: nn.Module
    view: str
    dtype: Any
    replicated: bool = False

    def init(self, key: jax.Array, batch: Batch) -> dict[str, PyTree]:
        """Draws fresh variables, in float32 or wider. `batch` needs one example and no values of
        note.
        """
        # Compiled as one program, since op by op a deep network takes long to initialize.
        arguments, _ = windows.split(batch.views[self.view])
        variables = jax.jit(self.module.init)(key, **arguments)
        return self.stored(variables)

    def stored(self, variables: Variables) -> dict[str, PyTree]:
        """Returns the variables as they are kept and optimised: float32, or float64 for such a
        network.
        """
        return cast(dict(variables), jnp.promote_types(jnp.float32, self.dtype))

    def frozen(self, variables: Variables) -> dict[str, PyTree]:
        """Casts the variables for a teacher: to the dtype it computes in, statistics wide as they
        were.
        """
        # Running statistics move by steps so small that bfloat16 would round them away.
        return {
            kind: cast(tree, self.dtype) if kind == "params" else tree
            for kind, tree in variables.items()
        }

    def signal_shape(self, variables: Variables, batch: Batch) -> tuple[int, ...]:
        """Returns the shape of what can be added to each example.

        `(H, W, C)` for images, `(width of the word embeddings,)` for texts.
        """
        view = batch.views[self.view]
        if "images" in view:
            return tuple(view["images"].shape[1:])
        # A signal for texts has the width of the word embeddings.
        table = f"{WORDS}/embedding"
        found = [
            leaf
            for path, leaf in leaves_by_path(variables["params"]).items()
            if path.endswith(table)
        ]
        if not found:
            raise ValueError(
                f"it has no module named {WORDS!r}, whose output a condition is added to"
            )
        return (found[0].shape[-1],)

    def __call__(
        self, variables: Variables, batch: Batch, signal: Array | None = None
    ) -> ModelOutput:
        """Applies the model for inference: no dropout, stored BatchNorm statistics.

        Args:
          variables: in any dtype.
          batch: the examples.
          signal: `[B, *signal_shape]`, added to each image or to each word embedding of a text;
            None: nothing is.
        """
        inputs, mix = _unmixed(batch.views[self.view])
        inputs, parts = windows.split(inputs)
        inputs, add = _conditioned(inputs, windows.repeat(signal, parts))
        with self._laid_out(mix, add):
            options: dict[str, Any] = mode(self._accepted, train=False)
            found: Any = self.module.apply(self.frozen(variables), **inputs, **options)
        return windows.join(as_output(found, {}, self._owner), parts)

    def train(
        self,
        variables: Variables,
        batch: Batch,
        *,
        dropout_key: jax.Array,
        axis_name: str | None,
        signal: Array | None = None,
    ) -> tuple[ModelOutput, PyTree]:
        """Applies the model in training mode.

        Dropout is drawn; BatchNorm reduces over the rows that are valid, on all devices of the
        axis.

        `signal` is as in inference.

        Returns:
          The output, and the new BatchNorm statistics (`{}` for a module without any).
        """
        # A registered module may know neither a mode nor what counts.
        options: dict[str, Any] = mode(self._accepted, train=True)
        inputs, mix = _unmixed(batch.views[self.view])
        inputs, parts = windows.split(inputs)
        # Only BatchNorm asks which rows count and which devices share the batch.
        if "batch_stats" in variables:
            where = batch.valid if parts is None else (batch.valid[:, None] & parts).reshape(-1)
            known = {"where": where, "axis_name": axis_name}
            options |= {name: value for name, value in known.items() if name in self._accepted}
        inputs, add = _conditioned(inputs, windows.repeat(signal, parts))
        with self._laid_out(mix, add):
            rngs = {"dropout": dropout_key}
            # Cast within the step, so that gradients arrive in the wide dtype of the parameters.
            applied: Any = self.module.apply(
                self.frozen(variables), **inputs, **options, rngs=rngs, mutable=["batch_stats"]
            )
            found, changed = applied
        output = windows.join(as_output(found, {}, self._owner), parts)
        return output, changed.get("batch_stats", {})

    @contextmanager
    def _laid_out(
        self, mix: Callable[..., Any] | None, add: Callable[..., Any] | None
    ) -> Iterator[None]:
        """Changes word embeddings by both, and cuts no activation of a replicated model."""
        whole = logical_axes.over(None) if self.replicated else nullcontext()
        with (
            _changed_embeddings(mix, "mixing"),
            _changed_embeddings(add, "a condition"),
            whole,
        ):
            yield

    @property
    def _accepted(self) -> set[str]:
        return accepted(type(self.module).__call__)

    @property
    def _owner(self) -> str:
        return f"the module {type(self.module).__name__}"
