"""How much each part of an input matters to a feature: the most noise on it that leaves the feature
in place."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from kd_jax.core import checks
from kd_jax.core.types import Array

FeaturesOf = Callable[[jax.Array], jax.Array]
"""A network's features `[N, D]` of inputs `[N, ...]`, each row by itself."""


def entropy(sigma: Array) -> jax.Array:
    """Computes `log sigma + 0.5 log(2 pi e)` in nats, the entropy of a unit under Gaussian noise.

    It is what is no longer known of the unit.
    """
    # The differential entropy of a normal distribution, in nats.
    return jnp.log(jnp.asarray(sigma)) + 0.5 * math.log(2 * math.pi * math.e)


def feature_variance(features: Array) -> jax.Array:
    """Computes `[]`, the mean squared distance of features `[N, D]` from their mean.

    It is the scale of `learn_noise`'s penalty.

    Raises:
      ValueError: if the shape doesn't fit, or if all features are the same.
    """
    if features.ndim != 2:
        raise ValueError(f"features must be [N, D], got {features.shape}")
    (features,) = checks.at_least_float32(jnp.asarray(features))
    variance = jnp.mean(
        jnp.sum(jnp.square(features - jnp.mean(features, axis=0, keepdims=True)), axis=1)
    )
    # The penalty is divided by this number; a traced value can't be checked.
    if not isinstance(variance, Tracer) and not variance > 0:
        raise ValueError(
            f"the features of {features.shape[0]} inputs must differ, got variance {variance}"
        )
    return variance


def learn_noise(
    features_of: FeaturesOf,
    inputs: Array,
    *,
    key: jax.Array,
    feature_variance: float | Array,
    units: tuple[int, ...],
    entropy_weight: float,
    steps: int,
    learning_rate: float,
    samples: int,
    initial_sigma: float,
    max_sigma: float,
) -> jax.Array:
    """Learns, for each example by itself, how much noise each unit bears.

    Minimises `E ||f(x + sigma e) - f(x)||^2 / variance - entropy_weight sum_i log sigma_i`, `e`
    standard normal, over the `sigma_i`: what the feature rests on stays nearly free of noise, and
    what it doesn't read drowns in it, up to `max_sigma`. By Adam on `log sigma`, its rate falling
    to 0 along a cosine, which averages the noise of the draws out. Examples run side by side and
    the steps are one loop; put the call under `jax.jit`, with the network's variables as an
    argument, to compile once for all checkpoints.

    Args:
      features_of: the network, which takes batches of `samples` inputs.
      inputs: `[N, ..., C]` floating point: images `[N, H, W, C]` or token embeddings `[N, T, C]`.
        The values of a position share one sigma.
      key: of the noise; an example's draws depend on its row in `inputs` too.
      feature_variance: what the squared change is measured against, see `feature_variance`; the
        same for inputs that are to be compared.
      units: how many there are along each axis of `...`, dividing it: `(H, W)` and `(T,)` are one a
        position, fewer share a sigma among neighbours.
      entropy_weight: `> 0`; the larger, the more change is accepted.
      steps: of Adam.
      learning_rate: of `log sigma`, at the start. A sigma moves by a factor of about `e^(rate steps
        / 2)` at most.
      samples: noisy inputs an example and step.
      initial_sigma: where each starts, at most `max_sigma`.
      max_sigma: the bound, in the inputs' unit.

    Returns:
      `[N, *units]` sigma, in the inputs' unit and at least float32.

    Raises:
      ValueError: if shapes don't fit, an option is out of range, or inputs or features aren't
        finite; traced values can't be checked.

    References:
      Cheng et al. `Explaining Knowledge Distillation by Quantifying the Knowledge
      <https://arxiv.org/abs/2003.03622>`_, 2020.
    """
    _require_options(
        feature_variance=feature_variance,
        entropy_weight=entropy_weight,
        steps=steps,
        learning_rate=learning_rate,
        samples=samples,
        initial_sigma=initial_sigma,
        max_sigma=max_sigma,
    )
    inputs = _as_inputs(inputs, units)
    clean = _features(features_of, inputs)
    # Logarithms are learned, so that no sigma can become negative.
    start = jnp.full(units, math.log(initial_sigma), inputs.dtype)

    def learn(key: jax.Array, example: jax.Array, feature: jax.Array) -> jax.Array:
        def loss(log_sigma: jax.Array, key: jax.Array) -> jax.Array:
            noise = jax.random.normal(key, (samples, *example.shape), example.dtype)
            # Noise scaled by sigma, and not drawn with it, so that sigma has a gradient.
            noisy = example[None] + _spread(jnp.exp(log_sigma), example.shape)[None] * noise
            change = jnp.sum(jnp.square(_features(features_of, noisy) - feature[None]), axis=1)
            # Much noise is rewarded, and a changed feature costs: what may be noisy is unknown.
            return jnp.mean(change) / feature_variance - entropy_weight * jnp.sum(log_sigma)

        return jnp.exp(
            _descend(loss, start, jax.random.split(key, steps), learning_rate, math.log(max_sigma))
        )

    # Examples are independent, so all of them are learned in one program.
    sigma = jax.vmap(learn)(jax.random.split(key, inputs.shape[0]), inputs, clean)
    _require_finite(sigma, "the features of noisy inputs, hence sigma,")
    return sigma


def _descend(
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    start: jax.Array,
    keys: jax.Array,
    rate: float,
    highest: float,
) -> jax.Array:
    """Takes one step of Adam for each of `keys`, none of which leads above `highest`."""
    # Gradients shrink by orders of magnitude on the way; Adam's usual memory of their squares would
    # outlast the run.
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, keys.shape[0]), b2=0.95)

    def step(state: tuple[jax.Array, optax.OptState], key: jax.Array):
        x, opt_state = state
        updates, opt_state = optimizer.update(jax.grad(loss)(x, key), opt_state)
        # Units that the feature doesn't read would grow without end, so they stop at the bound.
        return (jnp.minimum(jnp.asarray(optax.apply_updates(x, updates)), highest), opt_state), None

    (x, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys)
    return x


def _require_options(*, initial_sigma: float, max_sigma: float, **others: float | Array) -> None:
    for name, value in dict(initial_sigma=initial_sigma, max_sigma=max_sigma, **others).items():
        if not isinstance(value, Tracer) and not 0 < float(value) < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if initial_sigma > max_sigma:
        raise ValueError(f"initial_sigma {initial_sigma} exceeds max_sigma {max_sigma}")


def _as_inputs(inputs: Array, units: tuple[int, ...]) -> jax.Array:
    checks.require_floating(jnp.asarray(inputs), "inputs")
    positions = inputs.shape[1:-1]
    # The lengths are compared first, as `strict` would raise an error without a hint.
    fits = bool(units) and len(units) == len(positions)
    if not fits or any(n < 1 or size % n for n, size in zip(units, positions, strict=True)):
        raise ValueError(
            f"units must divide the positions {positions} of inputs {inputs.shape}, got {units}"
        )
    _require_finite(inputs, "inputs")
    return checks.at_least_float32(jnp.asarray(inputs))[0]


def _features(features_of: FeaturesOf, inputs: jax.Array) -> jax.Array:
    features = features_of(inputs)
    if features.ndim != 2 or features.shape[0] != inputs.shape[0]:
        raise ValueError(
            f"features_of must give [N, D] for N = {inputs.shape[0]} inputs, got {features.shape}"
        )
    _require_finite(features, "features")
    return checks.at_least_float32(features)[0]


def _spread(sigma: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Reshapes `[*units]` to `[..., 1]`, each unit's sigma at all its positions."""
    for axis, size in enumerate(shape[:-1]):
        sigma = jnp.repeat(sigma, size // sigma.shape[axis], axis=axis)
    return sigma[..., None]


def _require_finite(array: Array, what: str) -> None:
    if not isinstance(array, Tracer) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"{what} must be finite")
