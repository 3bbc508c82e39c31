"""From a model's section of the plan to what trains: its network and variables, its objective, its group."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from kd_jax import models
from kd_jax.datasets import Datasets, view_name
from kd_jax.loop import StopSignal
from kd_jax.models import pretrained
from kd_jax.network import DTYPES, Network
from kd_jax.objective import make_objective
from kd_jax.optimizer import make_optimizer
from kd_jax.parallel import Parallel
from kd_jax.plan import ModelPlan
from kd_jax.randomness import derived_seed, fold_name, stream
from kd_jax.step import Group, Learner
from kd_jax.terms import Site
from kd_jax.tree import count_parameters
from kd_jax.types import Batch, Variables


@dataclass(frozen=True)
class Model:
    """A model ready to teach and to be evaluated.

    Attributes:
      plan: its section.
      network: how it is applied.
      variables: as they are stored, on the devices.
      description: what `finished.json` says of it.
    """

    plan: ModelPlan
    network: Network
    variables: Variables
    description: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """How many parameters it has, BatchNorm statistics left out."""
        return count_parameters(self.variables["params"])


@dataclass(frozen=True)
class Surroundings:
    """What all models of a run share.

    Attributes:
      workdir: the run's folder.
      datasets: the data.
      parallel: the devices.
      seed: the experiment's.
      checkpoint: the config's section.
      logging: the config's section.
      stop: whether SIGTERM came.
    """

    workdir: Path
    datasets: Datasets
    parallel: Parallel
    seed: int
    checkpoint: Mapping[str, Any]
    logging: Mapping[str, Any]
    stop: StopSignal

    @property
    def processes(self) -> int:
        """How many processes share each batch; the smallest global batch."""
        return jax.process_count()


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
        if "pretrained" in spec:
            folder = pretrained.folder_of(spec.pop("pretrained"))
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
    tokens = around.datasets.vocabulary_size(plan.view)
    if tokens is None or tokens > module.vocabulary_size:
        raise ValueError(f"its view has {tokens} tokens and its embedding {module.vocabulary_size} rows")


def example(plan: ModelPlan, around: Surroundings) -> Batch:
    """A batch of one example, as the model sees it, for shapes."""
    return next(
        iter(around.datasets.evaluation_batches(around.datasets.splits["train"], [plan.view], around.processes))
    )


def make_group(
    plan: ModelPlan, network: Network, teachers: Mapping[str, Model], around: Surroundings, total_steps: int
) -> Group:
    """The group of one that a plan's section describes; every option is checked here, before anything compiles."""
    views = [plan.view, *(teacher.plan.view for teacher in teachers.values())]
    source = around.datasets.splits["train"]
    seen = next(iter(around.datasets.evaluation_batches(source, views, around.processes)))
    student = jax.eval_shape(lambda batch: network(network.init(jax.random.key(0), batch), batch), seen)
    taught = {name: jax.eval_shape(teacher.network, teacher.variables, seen) for name, teacher in teachers.items()}
    tokens = seen.views[network.view].get("input_ids")
    site = Site(network.view, student, taught, None if tokens is None else tokens.shape[1])
    for name, teacher in taught.items():
        if teacher.logits.shape[-1] != around.datasets.num_classes:
            raise ValueError(f"teacher {name!r} has {teacher.logits.shape[-1]} classes, the data has"
                             f" {around.datasets.num_classes}")  # fmt: skip
    try:
        objective = make_objective(plan.objective, site)
        update, _ = make_optimizer(plan.training["optimizer"], plan.training["schedule"], total_steps)
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None
    networks = {name: teacher.network for name, teacher in teachers.items()}
    seed = derived_seed(around.seed, "train", plan.kin)
    return Group({plan.name: Learner(network, objective, update)}, networks, seed)


def total_steps(examples: int, training: Mapping[str, Any]) -> int:
    """Optimizer steps in `epochs` passes over the examples; at least one."""
    return max(1, math.ceil(examples * training["epochs"] / training["batch_size"]))
