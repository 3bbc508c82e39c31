"""The training step and the evaluation step: pure functions of state, frozen teachers and one
global batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kd_jax.config.teachers import EMA, PEER
from kd_jax.core.rng import fold_name, stream
from kd_jax.core.types import Batch, Mean, ModelOutput, PyTree, Variables
from kd_jax.models.network import Network
from kd_jax.models.projectors.conditioning import Condition, init_map, training_signal
from kd_jax.objective.objective import Objective
from kd_jax.training.mixup import Mixing
from kd_jax.training.state import ModelState, TrainState


@dataclass(frozen=True)
class ModelTraining:
    """How one member of a group is trained.

    Attributes:
      network: the model.
      objective: what it minimises.
      update: the optimizer over `{"model": params, "objective": its terms' params}`.
      decay: of the moving average of its variables, which then teaches it as "ema:NAME"; None:
        there is none.
      condition: a teacher's output that is part of its input; its map is trained beside the
        objective's terms.
      peers: members of its group that teach it, each by its output in the same step, as
        "peer:NAME".
    """

    network: Network
    objective: Objective
    update: optax.GradientTransformation
    decay: float | None = None
    condition: Condition | None = None
    peers: tuple[str, ...] = ()

    def init(self, variables: Variables, key: jax.Array) -> ModelState:
        """A member before its first step, from the model's variables."""
        objective, memory = self.objective.init(key)
        objective |= init_map(self.condition, key)
        params, statistics = variables["params"], variables.get("batch_stats", {})
        opt_state = self.update.init({"model": params, "objective": objective})
        member = ModelState(params, statistics, objective, memory, opt_state)
        return (
            member
            if self.decay is None
            else replace(member, ema=jax.tree.map(jnp.copy, member.variables()))
        )

    def averaged(self, old: ModelState, new: ModelState, step: Any) -> ModelState:
        """The new member with its moving average: a plain mean at first, until `decay` is
        reached."""
        if self.decay is None:
            return new
        keep = jnp.minimum(self.decay, step / (step + 1))

        def follow(mean, now):
            return (keep * mean + (1 - keep) * now).astype(mean.dtype)

        return replace(new, ema=jax.tree.map(follow, old.ema, new.variables()))


@dataclass(frozen=True)
class PeerGroup:
    """Models that share batch and step, and the frozen teachers they learn from.

    Attributes:
      models: name -> `Learner`.
      teachers: name -> `Network` or what stands in its place; its variables are handed to the step
        beside the state.
      seed: of the dropout, of the terms that draw and of mixing.
      mixing: how each microbatch is mixed before any model reads it; None: not at all.
    """

    models: Mapping[str, ModelTraining]
    teachers: Mapping[str, Callable[[Any, Batch], ModelOutput]]
    seed: int
    mixing: Mixing | None = None

    def all_teachers(self) -> dict[str, Callable[[Any, Batch], ModelOutput]]:
        """Name -> network: the frozen teachers, and the members' moving averages."""
        averages = {
            f"{EMA}{name}": x.network for name, x in self.models.items() if x.decay is not None
        }
        return {**self.teachers, **averages}


def sum_over(tree: PyTree, axis_name: str | None) -> PyTree:
    """The sum over pmap's devices; under jit the arrays are global already."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def accuracy(logits: jax.Array, batch: Batch) -> Mean:
    """Mean over the labelled examples of whether the largest logit is the label's (a soft label's
    largest)."""
    labels = batch.labels if batch.labels.ndim == 1 else jnp.argmax(batch.labels, axis=-1)
    counted = batch.valid & batch.label_valid
    return Mean(jnp.sum((jnp.argmax(logits, axis=-1) == labels) & counted), jnp.sum(counted))


def _logits_of(
    network: Callable[[Any, Batch], ModelOutput], variables: Variables
) -> Callable[[Batch], jax.Array]:
    """A network as a function of the batch alone, for terms that ask about other examples."""
    return lambda batch: network(variables, batch).logits


def _group_loss(trained, rest, frozen, batch, key, *, group, counts, step, axis_name):
    """One microbatch's share of the sum of the members' losses; (terms, accuracy, statistics,
    memory) beside it."""
    teachers = group.all_teachers()
    taught = {
        name: jax.lax.stop_gradient(network(frozen[name], batch))
        for name, network in teachers.items()
    }
    asked = {
        name: _logits_of(network, jax.lax.stop_gradient(frozen[name]))
        for name, network in teachers.items()
    }
    # The first member draws as it would alone, each further one by its name.
    keys = {
        name: fold_name(key, name) if number else key for number, name in enumerate(group.models)
    }
    outputs, statistics, held = {}, {}, {}
    for name, learner in group.models.items():
        # Replicas draw dropout of their own; what the objective draws must be the same on all of
        # them.
        drop = (
            keys[name]
            if axis_name is None
            else jax.random.fold_in(keys[name], jax.lax.axis_index(axis_name))
        )
        held[name] = {"params": trained[name]["model"]} | (
            {"batch_stats": rest[name][0]} if rest[name][0] else {}
        )
        signal = training_signal(
            learner.condition, trained[name]["objective"], taught, keys[name], axis_name
        )
        outputs[name], statistics[name] = learner.network.train(
            held[name], batch, dropout_key=drop, axis_name=axis_name, signal=signal
        )
        asked[f"{PEER}{name}"] = _logits_of(learner.network, jax.lax.stop_gradient(held[name]))
    loss, logs, kept = jnp.zeros(()), {}, {}
    for name, learner in group.models.items():
        peers = {f"{PEER}{peer}": jax.lax.stop_gradient(outputs[peer]) for peer in learner.peers}
        means, memory = learner.objective(
            trained[name]["objective"],
            rest[name][1],
            outputs[name],
            taught | peers,
            batch,
            step=step,
            key=keys[name],
            axis_name=axis_name,
            student_logits=_logits_of(learner.network, held[name]),
            teacher_logits=asked,
        )
        loss += learner.objective.total(means, counts[name], step)
        logs[name] = means | {"accuracy": accuracy(outputs[name].logits, batch)}
        kept[name] = (statistics[name], memory)
    return loss, (logs, kept)


def _mixed(frozen, batch, step, *, group, axis_name) -> Batch:
    """Every microbatch, mixed; of several candidates for an example the one that its teachers are
    least certain of."""
    keys = jax.random.split(stream(group.seed, "mixing", step), batch.valid.shape[0])
    parts = [
        _least_certain(
            frozen, jax.tree.map(lambda leaf, i=i: leaf[i], batch), keys[i], group, axis_name
        )
        for i in range(len(keys))
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def _least_certain(frozen, microbatch, key, group, axis_name) -> Batch:
    candidates = group.mixing.candidates
    if candidates == 1:
        return group.mixing(microbatch, key, axis_name)
    mixes = [group.mixing(microbatch, k, axis_name) for k in jax.random.split(key, candidates)]

    def uncertainty(mix: Batch) -> jax.Array:
        """[B] nats, mean over the teachers."""
        logits = jnp.stack(
            [network(frozen[name], mix).logits for name, network in group.teachers.items()]
        )
        return jnp.mean(jnp.sum(jax.scipy.special.entr(jax.nn.softmax(logits)), axis=-1), axis=0)

    best = jnp.argmax(jnp.stack([uncertainty(mix) for mix in mixes]), axis=0)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[best, jnp.arange(best.size)], *mixes)


def _sum_of_gradients(
    state, frozen, batch, keys, *, group, counts, axis_name
) -> tuple[Any, Any, Any]:
    """Gradients and logs summed over the microbatches, and the statistics and memory that the last
    one leaves."""
    microbatches: Any = (batch, keys)
    trained = {n: {"model": m.params, "objective": m.term_params} for n, m in state.models.items()}
    rest = {n: (m.batch_stats, m.term_state) for n, m in state.models.items()}
    differentiate = jax.grad(_group_loss, has_aux=True)

    def one(rest, microbatch):
        settings = {"group": group, "counts": counts, "step": state.step, "axis_name": axis_name}
        gradients, (logs, rest) = differentiate(trained, rest, frozen, *microbatch, **settings)
        return (gradients, logs), rest

    if keys.shape[0] == 1:
        (gradients, logs), rest = one(rest, jax.tree.map(lambda leaf: leaf[0], microbatches))
        return gradients, logs, rest

    def accumulate(carry, microbatch):
        sums, rest = carry
        parts, rest = one(rest, microbatch)
        return (jax.tree.map(jnp.add, sums, parts), rest), None

    shapes, _ = jax.eval_shape(one, rest, jax.tree.map(lambda leaf: leaf[0], microbatches))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    ((gradients, logs), rest), _ = jax.lax.scan(accumulate, (zeros, rest), microbatches)
    return gradients, logs, rest


def train_step(
    state: TrainState,
    frozen: Mapping[str, Variables],
    batch: Batch,
    *,
    group: PeerGroup,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, dict[str, Any]]]:
    """One update of every member of the group on one global batch.

    A term's mean is taken once, over what counts in the whole batch: all microbatches, all devices.

    Args:
      state: the group's state.
      frozen: teacher's name -> its variables; no gradient reaches them.
      batch: leaves `[accumulate, microbatch, ...]`; under pmap the device's rows of each
        microbatch.
      group: what is trained, and by what.
      axis_name: pmap's axis, None under jit.

    Returns:
      The new state, and member -> {term: `Mean`, "accuracy": `Mean`, "loss": [], "gradient_norm":
      []}.
    """
    keys = jax.random.split(stream(group.seed, "step", state.step), batch.valid.shape[0])
    if group.mixing is not None:
        batch = _mixed(frozen, batch, state.step, group=group, axis_name=axis_name)
    frozen = {**frozen, **{f"{EMA}{name}": member.ema for name, member in state.models.items()}}
    counts = sum_over(
        {n: learner.objective.normalizers(batch) for n, learner in group.models.items()}, axis_name
    )
    gradients, logs, rest = _sum_of_gradients(
        state, frozen, batch, keys, group=group, counts=counts, axis_name=axis_name
    )
    gradients, logs = sum_over((gradients, logs), axis_name)
    members, metrics = {}, {}
    for name, learner in group.models.items():
        member = state.models[name]
        trained: Any = {"model": member.params, "objective": member.term_params}
        updates, opt_state = learner.update.update(gradients[name], member.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        new = ModelState(
            trained["model"], rest[name][0], trained["objective"], rest[name][1], opt_state
        )
        members[name] = learner.averaged(member, new, state.step)
        terms = {term: logs[name][term] for term in learner.objective.terms}
        loss = learner.objective.total(terms, counts[name], state.step)
        metrics[name] = logs[name] | {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradients[name]),
        }
    return TrainState(state.step + 1, members), metrics
