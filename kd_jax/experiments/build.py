"""From a model's section of the plan to what trains: its network and variables, its objective, its
group."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from kd_jax.config.schema import FROM_MODEL, ModelPlan
from kd_jax.config.teachers import EMA, PEER
from kd_jax.core.rng import derived_seed, fold_name, stream
from kd_jax.core.types import Batch, ModelOutput, Variables
from kd_jax.data.run_datasets import view_name
from kd_jax.data.source import Source
from kd_jax.models import registry
from kd_jax.models.network import DTYPES, Network
from kd_jax.models.projectors.conditioning import Condition
from kd_jax.models.weights import load
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import TermSpec
from kd_jax.teachers.frozen import FrozenTeachers
from kd_jax.training.context import RunContext
from kd_jax.training.mixup import make_mixing
from kd_jax.training.optimizers import make_optimizer
from kd_jax.training.step import ModelTraining, PeerGroup


def build(plan: ModelPlan, context: RunContext) -> tuple[Network, Variables]:
    """The network of a plan and its variables before training."""
    module, variables = _module(plan, context)
    network = Network(module, view_name(plan.view), DTYPES[plan.dtype])
    if variables is None:
        key = fold_name(stream(context.seed, "init"), plan.seed_group)
        variables = network.init(key, example(plan, context))
    return network, network.stored(variables)


def _module(plan: ModelPlan, context: RunContext) -> tuple[nn.Module, Variables | None]:
    spec, classes = dict(plan.model), context.datasets.num_classes
    try:
        if "pretrained" in spec or FROM_MODEL in spec:
            own = spec.pop(FROM_MODEL, None)
            folder = context.workdir / own if own else load.path_of(spec.pop("pretrained"))
            spec.pop("name", None)
            module, variables = load.load(
                folder, classes, seed=derived_seed(context.seed, "head", plan.seed_group), **spec
            )
            _check_vocabulary(plan, module, context)
            return module, variables
        vocabulary = context.datasets.vocabulary_size(plan.view)
        spec |= {"num_classes": classes} | (
            {} if vocabulary is None else {"vocabulary_size": vocabulary}
        )
        return registry.build(spec), None
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None


def _check_vocabulary(plan: ModelPlan, module: Any, context: RunContext) -> None:
    tokens, rows = (
        context.datasets.vocabulary_size(plan.view),
        getattr(module, "vocabulary_size", None),
    )
    if rows is None and tokens is not None:
        raise ValueError("it reads images and its view gives tokens")
    if rows is not None and (tokens is None or tokens > rows):
        raise ValueError(f"its view has {tokens} tokens and its embedding {rows} rows")


def example(plan: ModelPlan, context: RunContext) -> Batch:
    """A batch of one example, as the model sees it, for shapes."""
    return next(
        iter(
            context.datasets.evaluation_batches(
                context.datasets.splits["train"], [plan.view], context.processes
            )
        )
    )


def input_shapes(plan: ModelPlan, context: RunContext) -> dict[str, list[int]]:
    """What the model reads of one example, by argument: shapes without the batch, texts at their
    full length."""
    view = example(plan, context).views[view_name(plan.view)]
    if "max_length" in plan.view:
        return {name: [plan.view["max_length"]] for name in view}
    return {name: list(array.shape[1:]) for name, array in view.items()}


def make_group(
    plans: Sequence[ModelPlan],
    networks: Mapping[str, Network],
    teachers: FrozenTeachers,
    context: RunContext,
    total_steps: int,
    conditions: Mapping[str, Condition | None],
) -> PeerGroup:
    """The group of a model and its peers, or of one alone; every option is checked here, before
    anything compiles.

    Its batches are those that the first member would see alone.

    Args:
      plans: the members' sections, which agree in `kd_jax.config.teachers.SHARED`.
      networks: the members', by name.
      teachers: frozen teachers of any of them.
      context: data and seed.
      total_steps: of the training.
      conditions: the members', by name.

    Raises:
      ValueError: naming the model and what doesn't fit.
    """
    source = context.datasets.training_source(plans[0].data)
    views = [*(plan.view for plan in plans), *teachers.views]
    seen = next(iter(context.datasets.evaluation_batches(source, views, context.processes)))
    outputs = {
        name: jax.eval_shape(lambda x, n=n: n(n.init(jax.random.key(0), x), x), seen)
        for name, n in networks.items()
    }
    cached = tuple(name for plan in plans for name in plan.cached)
    learners, mixing = {}, None
    for plan in plans:
        site = _site(plan, networks, outputs, teachers, seen, source, context, cached)
        try:
            mixing = make_mixing(
                plan.training.get("mixing"), context.datasets.modality, context.datasets.num_classes
            )
            if mixing is not None and mixing.candidates > 1 and not teachers.networks:
                raise ValueError(
                    "training.mixing.candidates must be 1 without a teacher to choose among them"
                )
            objective = make_objective(plan.objective, site)
            labelled = [name for name, term in objective.terms.items() if term.labelled]
            if labelled and not (source.labels >= 0).any():
                raise ValueError(
                    f"objective {labelled[0]!r} learns from labels, and {source.name!r} has none"
                )
            if mixing is not None and (
                kept := jax.eval_shape(objective.init, jax.random.key(0))[1]
            ):
                raise ValueError(
                    f"{', '.join(kept)} remembers each example as it is: training.mixing must be None"
                )
            update, _ = make_optimizer(
                plan.training["optimizer"], plan.training["schedule"], total_steps
            )
        except ValueError as error:
            raise ValueError(f"models.{plan.name}: {error}") from None
        learners[plan.name] = ModelTraining(
            networks[plan.name], objective, update, plan.decay, conditions[plan.name], plan.peers
        )
    return PeerGroup(
        learners,
        teachers.networks,
        derived_seed(context.seed, "train", plans[0].seed_group),
        mixing,
    )


def _site(
    plan: ModelPlan,
    networks: Mapping[str, Network],
    outputs: Mapping[str, ModelOutput],
    teachers: FrozenTeachers,
    seen: Batch,
    source: Source,
    context: RunContext,
    cached: tuple[str, ...],
) -> TermSpec:
    """What the terms of one member may read: its own teachers only, whoever else teaches in its
    group."""
    shapes, view, classes = (
        teachers.shapes(seen),
        networks[plan.name].view,
        context.datasets.num_classes,
    )
    taught = {name: shapes[name] for name in plan.teachers}
    views = {name: teachers.view_names[name] for name in plan.teachers}
    live = {f"{PEER}{peer}": peer for peer in plan.peers}
    live |= {f"{EMA}{plan.name}": plan.name} if plan.decay is not None else {}
    for name, member in live.items():
        taught[name], views[name] = outputs[member], networks[member].view
    for name, output in taught.items():
        if (found := output.logits.shape[-1]) != classes:
            raise ValueError(
                f"models.{plan.name}: teacher {name!r} has {found} classes, the data has {classes}"
            )
    tokens = seen.views[view].get("input_ids")
    return TermSpec(
        view,
        outputs[plan.name],
        taught,
        None if tokens is None else tokens.shape[1],
        views,
        source.labels,
        classes,
        jax.eval_shape(dict, seen.views),
        cached,
    )


def total_steps(examples: int, training: Mapping[str, Any]) -> int:
    """Optimizer steps in `epochs` passes over the examples; at least one."""
    return max(1, math.ceil(examples * training["epochs"] / training["batch_size"]))
