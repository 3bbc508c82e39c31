"""The training step: a pure function of the state, the frozen teachers and one global batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kd_jax.config.teachers import EMA, PEER
from kd_jax.core.pytree import all_finite
from kd_jax.core.rng import fold_name, stream
from kd_jax.core.types import Array, Batch, ForwardFn, ModelOutput, PyTree, Teacher, Variables
from kd_jax.models.network import Network
from kd_jax.models.projectors.conditioning import Condition, init_map, training_signal
from kd_jax.objective.objective import Objective
from kd_jax.objective.terms.term import StepContext
from kd_jax.tasks import CLASSIFICATION, Task
from kd_jax.training.mixup import Mixing
from kd_jax.training.state import ModelState, TrainState

Metrics = dict[str, dict[str, Any]]
"""Model's name -> {term: `Mean`, the task's metrics: `Mean`, "loss": [], "gradient_norm": [],
`FINITE`: []}."""

FINITE = "parameters_finite"
"""Metric that says, [] bool, whether no new parameter or BatchNorm statistic is NaN or infinite."""


class Auxiliary(NamedTuple):
    """What a step changes of a model beside what gradients reach.

    Attributes:
      batch_stats: running statistics of BatchNorm, `{}` without any.
      term_state: state of the objective's terms, by term.
    """

    batch_stats: PyTree
    term_state: PyTree


@dataclass(frozen=True)
class ModelTraining:
    """How one model of a group is trained.

    Attributes:
      network: the model.
      objective: what it minimizes.
      optimizer: over `{"model": params, "objective": parameters of its terms}`.
      decay: of the moving average of its variables, which then teaches it as "ema:NAME"; None:
        there is none.
      condition: a teacher's output that is part of its input; the map is trained beside the terms.
      peers: models of its group that teach it, each by its output in the same step, as "peer:NAME".
      learning_rate: by step, for the log; None: it isn't known.
    """

    network: Network
    objective: Objective
    optimizer: optax.GradientTransformation
    decay: float | None = None
    condition: Condition | None = None
    peers: tuple[str, ...] = ()
    learning_rate: Callable[[int], Any] | None = None

    def init(self, variables: Variables, key: jax.Array) -> ModelState:
        """Returns the state before the first step.

        Args:
          variables: the model's.
          key: for the parameters of the terms and of the condition's map.
        """
        term_params, term_state = self.objective.init(key)
        term_params |= init_map(self.condition, key)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        opt_state = self.optimizer.init({"model": params, "objective": term_params})
        state = ModelState(params, batch_stats, term_params, term_state, opt_state)
        if self.decay is None:
            return state
        # A copy, because a step donates its state, and no buffer can be donated twice.
        return replace(state, ema=jax.tree.map(jnp.copy, state.variables()))

    def averaged(self, old: ModelState, new: ModelState, step: Array) -> ModelState:
        """Returns the new state with its moving average: a plain mean until `decay` is reached."""
        if self.decay is None:
            return new
        # At step 0 nothing is kept, so the random initial weights never enter the average.
        keep = jnp.minimum(self.decay, step / (step + 1))

        def follow(mean: jax.Array, now: jax.Array) -> jax.Array:
            return (keep * mean + (1 - keep) * now).astype(mean.dtype)

        return replace(new, ema=jax.tree.map(follow, old.ema, new.variables()))


@dataclass(frozen=True)
class PeerGroup:
    """Models that are trained together: they share batches and steps.

    Attributes:
      models: name -> how it is trained. Most groups have one model.
      seed: of dropout, of terms that draw, and of mixing.
      mixing: how each microbatch is mixed before any model reads it; None: not at all.
      task: what they predict.
      repeat: steps after which the same batches come again, mixed alike; None: never.
    """

    models: Mapping[str, ModelTraining]
    seed: int
    mixing: Mixing | None = None
    task: Task = CLASSIFICATION
    repeat: int | None = None


def all_reduce_sum(tree: PyTree, axis_name: str | None) -> PyTree:
    """Returns the sum over pmap's devices; under jit arrays are global already."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def train_step(
    state: TrainState,
    teachers: Mapping[str, Teacher],
    batch: Batch,
    *,
    group: PeerGroup,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Updates every model of the group on one global batch.

    Args:
      state: the group's state.
      teachers: name -> frozen teacher; no gradient reaches its variables.
      batch: leaves `[accumulate, microbatch, ...]`; under pmap the device's rows of each
        microbatch.
      group: what is trained, and how.
      axis_name: pmap's axis; None under jit.

    Returns:
      The new state, and the metrics of each model.
    """
    # Keys depend on the seed and the step alone, so a resumed run draws what the first would have.
    keys = jax.random.split(stream(group.seed, "step", state.step), batch.valid.shape[0])
    if group.mixing is not None:
        batch = _mix(group.mixing, teachers, batch, state.step, group=group, axis_name=axis_name)
    # A term is averaged once, over everything that counts in the global batch, so the shares of
    # microbatches and devices simply add up.
    normalizers = all_reduce_sum(
        {name: model.objective.normalizers(batch) for name, model in group.models.items()},
        axis_name,
    )
    # A moving average teaches as it was before this step, like a frozen teacher.
    averages = {
        f"{EMA}{name}": Teacher(state.models[name].ema, model.network)
        for name, model in group.models.items()
        if model.decay is not None
    }
    # Terms can have parameters too (projectors), so these are trained with the model's.
    trainable = {
        name: {"model": model.params, "objective": model.term_params}
        for name, model in state.models.items()
    }
    aux = {name: Auxiliary(m.batch_stats, m.term_state) for name, m in state.models.items()}
    fixed = {
        "group": group,
        "teachers": {**teachers, **averages},
        "normalizers": normalizers,
        "step": state.step,
        "axis_name": axis_name,
    }
    # One microbatch needs no scan, and no extra memory for the sums.
    if len(keys) == 1:
        microbatch, key = jax.tree.map(lambda leaf: leaf[0], (batch, keys))
        grads, (metrics, aux) = jax.grad(loss_fn, has_aux=True)(
            trainable, aux, microbatch, key, **fixed
        )
    else:
        (grads, metrics), aux = _accumulate(trainable, aux, batch, keys, fixed)
    # Reduced once after all microbatches; a reduction inside the scan would cost one for each.
    grads, metrics = all_reduce_sum((grads, metrics), axis_name)
    return _apply_gradients(state, grads, metrics, aux, normalizers, group)


def loss_fn(
    trainable: PyTree,
    aux: Mapping[str, Auxiliary],
    batch: Batch,
    key: jax.Array,
    *,
    group: PeerGroup,
    teachers: Mapping[str, Teacher],
    normalizers: Mapping[str, Any],
    step: Array,
    axis_name: str | None,
) -> tuple[jax.Array, tuple[Metrics, dict[str, Auxiliary]]]:
    """Computes one microbatch's share of the sum of the models' losses.

    Args:
      trainable: model's name -> its parameters and those of its terms.
      aux: model's name -> what changes without gradients.
      batch: the microbatch.
      key: for what is drawn in it, the same on all devices.
      group: what is trained, and how.
      teachers: frozen teachers and moving averages, by name.
      normalizers: model's name -> term -> how many values count in the global batch.
      step: [] steps taken, for schedules.
      axis_name: pmap's axis; None under jit.

    Returns:
      The share [], and beside it the sums of each term and the new `aux`.
    """
    # 1. Teachers: frozen ones and moving averages. No gradient enters.
    teacher_outputs = {name: teacher(batch) for name, teacher in teachers.items()}
    forward_fns = {name: teacher.logits for name, teacher in teachers.items()}
    # 2. Students in training mode; one that is conditioned on a teacher reads its output. The first
    # model draws as it would alone, each further one by its name.
    keys = {name: fold_name(key, name) if i else key for i, name in enumerate(group.models)}
    outputs: dict[str, ModelOutput] = {}
    batch_stats: dict[str, PyTree] = {}
    variables: dict[str, dict[str, PyTree]] = {}
    for name, model in group.models.items():
        # Replicas draw dropout of their own; what the objective draws is the same on all of them.
        dropout_key = keys[name]
        if axis_name is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
        variables[name] = {"params": trainable[name]["model"]}
        if aux[name].batch_stats:
            variables[name]["batch_stats"] = aux[name].batch_stats
        conditioning = training_signal(
            model.condition, trainable[name]["objective"], teacher_outputs, keys[name], axis_name
        )
        outputs[name], batch_stats[name] = model.network.train(
            variables[name],
            batch,
            dropout_key=dropout_key,
            axis_name=axis_name,
            signal=conditioning,
        )
        # Terms may ask a peer about other examples, so its weights of this step are at hand.
        live = Teacher(variables[name], model.network)
        forward_fns[f"{PEER}{name}"] = live.logits
    # 3. Each student's objective; peers are teachers of the same step.
    loss, metrics, new_aux = jnp.zeros(()), {}, {}
    for name, model in group.models.items():
        # Without stop_gradient the loss of one model would change its peer through these outputs.
        peers = {f"{PEER}{peer}": jax.lax.stop_gradient(outputs[peer]) for peer in model.peers}
        context = StepContext(
            outputs[name],
            teacher_outputs | peers,
            batch,
            step,
            keys[name],
            axis_name,
            _logits_fn(model.network, variables[name]),
            forward_fns,
        )
        sums, term_state = model.objective.sums(
            trainable[name]["objective"], aux[name].term_state, context
        )
        loss += model.objective.weighted_sum(sums, normalizers[name], step)
        # Sums are reported instead of means, because only sums can be added over devices and steps.
        own = batch.as_read(model.network.view)
        metrics[name] = sums | group.task.training_metrics(outputs[name].logits, own)
        new_aux[name] = Auxiliary(batch_stats[name], term_state)
    return loss, (metrics, new_aux)


def _logits_fn(forward: ForwardFn, variables: Variables) -> Callable[[Batch], jax.Array]:
    """Makes a model a function of the batch alone, for terms that ask about other examples."""
    return lambda batch: forward(variables, batch).logits


def _accumulate(
    trainable: PyTree,
    aux: dict[str, Auxiliary],
    batch: Batch,
    keys: jax.Array,
    fixed: Mapping[str, Any],
) -> tuple[tuple[PyTree, Metrics], dict[str, Auxiliary]]:
    """Sums gradients and metrics over the microbatches; the last one's `aux` is kept."""

    # A function of its own, so that both the shapes below and the scan come from the same code.
    def one(aux, microbatch):
        grads, (metrics, aux) = jax.grad(loss_fn, has_aux=True)(
            trainable, aux, *microbatch, **fixed
        )
        return (grads, metrics), aux

    # BatchNorm's statistics go on from one microbatch to the next; gradients are added up.
    def add(carry, microbatch):
        sums, aux = carry
        parts, aux = one(aux, microbatch)
        return (jax.tree.map(jnp.add, sums, parts), aux), None

    # The sums start at zeros of the right shapes, so that a scan traces the models only once.
    shapes, _ = jax.eval_shape(one, aux, jax.tree.map(lambda leaf: leaf[0], (batch, keys)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (sums, aux), _ = jax.lax.scan(add, (zeros, aux), (batch, keys))
    return sums, aux


def _apply_gradients(
    state: TrainState,
    grads: PyTree,
    metrics: Metrics,
    aux: Mapping[str, Auxiliary],
    normalizers: Mapping[str, Any],
    group: PeerGroup,
) -> tuple[TrainState, Metrics]:
    """Takes the optimizers' step; adds "loss", "gradient_norm" and `FINITE` to the metrics."""
    models, reported = {}, {}
    for name, model in group.models.items():
        old = state.models[name]
        # Weight decay reads the parameters, so optax is given them beside the gradients.
        trainable: Any = {"model": old.params, "objective": old.term_params}
        updates, opt_state = model.optimizer.update(grads[name], old.opt_state, trainable)
        trainable = optax.apply_updates(trainable, updates)
        new = ModelState(
            trainable["model"],
            aux[name].batch_stats,
            trainable["objective"],
            aux[name].term_state,
            opt_state,
        )
        # The average comes last, because it has to follow the weights after the update.
        models[name] = model.averaged(old, new, state.step)
        # One flag for all numbers of the new state, fetched with the metrics: parameters can
        # overflow in the very update whose loss and gradient are still finite.
        trained = (models[name].variables(), models[name].term_params)
        # The loss is computed again from the reduced sums, as one device knew only its own share.
        sums = {term: metrics[name][term] for term in model.objective.terms}
        loss = model.objective.weighted_sum(sums, normalizers[name], state.step)
        reported[name] = metrics[name] | {
            "loss": loss,
            "gradient_norm": optax.tree.norm(grads[name]),
            FINITE: all_finite(trained),
        }
    return TrainState(state.step + 1, models), reported


def _mix(
    mixing: Mixing,
    teachers: Mapping[str, Teacher],
    batch: Batch,
    step: Array,
    *,
    group: PeerGroup,
    axis_name: str | None,
) -> Batch:
    """Mixes every microbatch, before any model reads it."""
    number = step if group.repeat is None else step % group.repeat
    keys = mixing_keys(group.seed, number, batch.valid.shape[0])

    def mix(microbatch_and_key: tuple[Batch, jax.Array]) -> Batch:
        return mix_microbatch(mixing, teachers, *microbatch_and_key, axis_name, group.task)

    if len(keys) == 1:
        first = mix(jax.tree.map(lambda leaf: leaf[0], (batch, keys)))
        return jax.tree.map(lambda leaf: leaf[None], first)
    # A map traces the teachers once for all microbatches.
    return jax.lax.map(mix, (batch, keys))


def mixing_keys(seed: int, number: Array | int, accumulate: int) -> jax.Array:
    """Returns [accumulate] keys, by which the microbatches of a batch are mixed."""
    # A stream of its own: switching the mixing on leaves dropout's draws as they were.
    return jax.random.split(stream(seed, "mixing", number), accumulate)


def mix_microbatch(
    mixing: Mixing,
    teachers: Mapping[str, Teacher],
    batch: Batch,
    key: jax.Array,
    axis_name: str | None,
    task: Task = CLASSIFICATION,
) -> Batch:
    """Mixes one microbatch; of several candidates it keeps the least certain for the teachers."""
    if mixing.candidates == 1:
        return mixing(batch, key, axis_name)

    def uncertainty(mix: Batch) -> jax.Array:
        """Returns [B] nats, the mean over the teachers."""
        logits = jnp.stack([teacher(mix).logits for teacher in teachers.values()])
        return jnp.mean(task.entropy(logits), axis=0)

    # Each example chooses by itself, so rows of different candidates end up in one batch.
    mixes = [mixing(batch, k, axis_name) for k in jax.random.split(key, mixing.candidates)]
    best = jnp.argmax(jnp.stack([uncertainty(mix) for mix in mixes]), axis=0)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[best, jnp.arange(best.size)], *mixes)
