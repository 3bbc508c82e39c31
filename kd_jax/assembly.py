"""From a model's section of the plan to what trains: its network and variables, its objective, its group."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from kd_jax import models
from kd_jax.condition import Condition
from kd_jax.data.mixing import make_mixing
from kd_jax.data.sources import Source
from kd_jax.datasets import view_name
from kd_jax.models import pretrained
from kd_jax.network import DTYPES, Network
from kd_jax.objective import make_objective
from kd_jax.optimizer import make_optimizer
from kd_jax.plan import FROM_MODEL, ModelPlan
from kd_jax.randomness import derived_seed, fold_name, stream
from kd_jax.step import Group, Learner
from kd_jax.surroundings import Surroundings
from kd_jax.teachers.frozen import FrozenTeachers
from kd_jax.teaching import EMA, PEER
from kd_jax.terms import Site
from kd_jax.types import Batch, ModelOutput, Variables


def build(plan: ModelPlan, around: Surroundings) -> tuple[Network, Variables]:
    """The network of a plan and its variables before training."""
    module, variables = _module(plan, around)
    network = Network(module, view_name(plan.view), DTYPES[plan.dtype])
    if variables is None:
        key = fold_name(stream(around.seed, "init"), plan.kin)
        variables = network.init(key, example(plan, around))
    return network, network.stored(variables)


def _module(plan: ModelPlan, around: Surroundings) -> tuple[nn.Module, Variables | None]:
    spec, classes = dict(plan.model), around.datasets.num_classes
    try:
        if "pretrained" in spec or FROM_MODEL in spec:
            own = spec.pop(FROM_MODEL, None)
            folder = around.workdir / own if own else pretrained.path_of(spec.pop("pretrained"))
            spec.pop("name", None)
            module, variables = pretrained.load(
                folder, classes, seed=derived_seed(around.seed, "head", plan.kin), **spec
            )
            _check_vocabulary(plan, module, around)
            return module, variables
        vocabulary = around.datasets.vocabulary_size(plan.view)
        spec |= {"num_classes": classes} | ({} if vocabulary is None else {"vocabulary_size": vocabulary})
        return models.build(spec), None
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None


def _check_vocabulary(plan: ModelPlan, module: Any, around: Surroundings) -> None:
    tokens, rows = around.datasets.vocabulary_size(plan.view), getattr(module, "vocabulary_size", None)
    if rows is None and tokens is not None:
        raise ValueError("it reads images and its view gives tokens")
    if rows is not None and (tokens is None or tokens > rows):
        raise ValueError(f"its view has {tokens} tokens and its embedding {rows} rows")


def example(plan: ModelPlan, around: Surroundings) -> Batch:
    """A batch of one example, as the model sees it, for shapes."""
    return next(
        iter(around.datasets.evaluation_batches(around.datasets.splits["train"], [plan.view], around.processes))
    )


def input_shapes(plan: ModelPlan, around: Surroundings) -> dict[str, list[int]]:
    """What the model reads of one example, by argument: shapes without the batch, texts at their full length."""
    view = example(plan, around).views[view_name(plan.view)]
    if "max_length" in plan.view:
        return {name: [plan.view["max_length"]] for name in view}
    return {name: list(array.shape[1:]) for name, array in view.items()}


def make_group(
    plans: Sequence[ModelPlan], networks: Mapping[str, Network], teachers: FrozenTeachers, around: Surroundings,
    total_steps: int, conditions: Mapping[str, Condition | None],
) -> Group:  # fmt: skip
    """The group of a model and its peers, or of one alone; every option is checked here, before anything compiles.

    Its batches are those that the first member would see alone.

    Args:
      plans: the members' sections, which agree in `kd_jax.teaching.SHARED`.
      networks: the members', by name.
      teachers: frozen teachers of any of them.
      around: data and seed.
      total_steps: of the training.
      conditions: the members', by name.

    Raises:
      ValueError: naming the model and what doesn't fit.
    """
    source = around.datasets.training_source(plans[0].data)
    views = [*(plan.view for plan in plans), *teachers.views]
    seen = next(iter(around.datasets.evaluation_batches(source, views, around.processes)))
    outputs = {name: jax.eval_shape(lambda x, n=n: n(n.init(jax.random.key(0), x), x), seen)
               for name, n in networks.items()}  # fmt: skip
    cached = tuple(name for plan in plans for name in plan.cached)
    learners, mixing = {}, None
    for plan in plans:
        site = _site(plan, networks, outputs, teachers, seen, source, around, cached)
        try:
            mixing = make_mixing(plan.training.get("mixing"), around.datasets.modality, around.datasets.num_classes)
            if mixing is not None and mixing.candidates > 1 and not teachers.networks:
                raise ValueError("training.mixing.candidates must be 1 without a teacher to choose among them")
            objective = make_objective(plan.objective, site)
            labelled = [name for name, term in objective.terms.items() if term.labelled]
            if labelled and not (source.labels >= 0).any():
                raise ValueError(f"objective {labelled[0]!r} learns from labels, and {source.name!r} has none")
            if mixing is not None and (kept := jax.eval_shape(objective.init, jax.random.key(0))[1]):
                raise ValueError(f"{', '.join(kept)} remembers each example as it is: training.mixing must be None")
            update, _ = make_optimizer(plan.training["optimizer"], plan.training["schedule"], total_steps)
        except ValueError as error:
            raise ValueError(f"models.{plan.name}: {error}") from None
        learners[plan.name] = Learner(
            networks[plan.name], objective, update, plan.decay, conditions[plan.name], plan.peers
        )
    return Group(learners, teachers.networks, derived_seed(around.seed, "train", plans[0].kin), mixing)


def _site(
    plan: ModelPlan, networks: Mapping[str, Network], outputs: Mapping[str, ModelOutput], teachers: FrozenTeachers,
    seen: Batch, source: Source, around: Surroundings, cached: tuple[str, ...],
) -> Site:  # fmt: skip
    """What the terms of one member may read: its own teachers only, whoever else teaches in its group."""
    shapes, view, classes = teachers.shapes(seen), networks[plan.name].view, around.datasets.num_classes
    taught = {name: shapes[name] for name in plan.teachers}
    views = {name: teachers.view_names[name] for name in plan.teachers}
    live = {f"{PEER}{peer}": peer for peer in plan.peers}
    live |= {f"{EMA}{plan.name}": plan.name} if plan.decay is not None else {}
    for name, member in live.items():
        taught[name], views[name] = outputs[member], networks[member].view
    for name, output in taught.items():
        if (found := output.logits.shape[-1]) != classes:
            raise ValueError(f"models.{plan.name}: teacher {name!r} has {found} classes, the data has {classes}")
    tokens = seen.views[view].get("input_ids")
    return Site(view, outputs[plan.name], taught, None if tokens is None else tokens.shape[1], views,
                source.labels, classes, jax.eval_shape(dict, seen.views), cached)  # fmt: skip


def total_steps(examples: int, training: Mapping[str, Any]) -> int:
    """Optimizer steps in `epochs` passes over the examples; at least one."""
    return max(1, math.ceil(examples * training["epochs"] / training["batch_size"]))
