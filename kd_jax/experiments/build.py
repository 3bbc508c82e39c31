"""Builds what trains from a model's section: network, first variables, objective, group."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kd_jax.config.schema import EMBEDDINGS, FROM_MODEL, ModelPlan
from kd_jax.config.teachers import EMA, PEER
from kd_jax.core.rng import derived_seed, fold_name, stream
from kd_jax.core.types import LOGITS, Batch, ModelOutput, Variables
from kd_jax.data.run_datasets import view_name
from kd_jax.data.source import Source
from kd_jax.experiments.check_inputs import check_inputs
from kd_jax.models import registry, windows, word_embeddings
from kd_jax.models.head import CLASSIFIER, rescale
from kd_jax.models.network import DTYPES, Network
from kd_jax.models.projectors.conditioning import Condition
from kd_jax.models.weights import load
from kd_jax.models.weights.open import Published, predicting
from kd_jax.objective.objective import Objective, make_objective
from kd_jax.objective.terms import TermSpec
from kd_jax.tasks import Task, read_task
from kd_jax.teachers.compression import Compression
from kd_jax.teachers.frozen import FrozenTeachers
from kd_jax.teachers.outputs import view_of
from kd_jax.training.context import RunContext
from kd_jax.training.mixup import Mixing, make_mixing
from kd_jax.training.optimizers import make_optimizer
from kd_jax.training.step import ModelTraining, PeerGroup
from kd_jax.training.trained_model import TrainedModel


def build(plan: ModelPlan, context: RunContext) -> tuple[Network, Variables]:
    """Returns the network of a model's section, and its variables before training."""
    module, variables = _module(plan, context)
    network = _network(plan, module, context)
    if variables is None:
        # Models that are `like` one another start alike: the fair baseline depends on it.
        key = fold_name(stream(context.seed, "init"), plan.seed_group)
        variables = _from_frequencies(network.init(key, example(plan, context)), context)
        if (options := plan.model.get(EMBEDDINGS)) is not None:
            source = _opened(options, context, None)
            table = word_embeddings.table_of(source)
            if (kept := context.datasets.cut_from(plan.view)[1]) is not None:
                table = np.asarray(table)[kept]
            table = word_embeddings.reduce(table, options.get("rank"))
            variables = word_embeddings.put(variables, table)
    # Trained parameters are kept wide, even where the network computes in bfloat16.
    return network, network.stored(variables)


def build_shapes(
    plan: ModelPlan, context: RunContext, earlier: Mapping[str, TrainedModel]
) -> tuple[Network, Variables]:
    """Returns the network of a model's section, and the shapes and dtypes of its variables.

    Args:
      plan: the section.
      context: of the run.
      earlier: models by name, also as shapes; it may start from one of them.
    """
    module, variables = _module(plan, context, earlier)
    network = _network(plan, module, context)
    if variables is None:
        # Any key will do, since shapes don't depend on it.
        shapes = jax.eval_shape(network.init, jax.random.key(0), example(plan, context))
        if (options := plan.model.get(EMBEDDINGS)) is not None:
            table = word_embeddings.table_of(_opened(options, context, earlier))
            width = word_embeddings.width_of(table, options.get("rank"))
            try:
                kept = context.datasets.cut_from(plan.view)[1]
                rows = table.shape[0]
                # The vocabulary that is cut must be one that all of the table is of.
                if kept is not None and kept.max() < rows:
                    rows = len(kept)
                word_embeddings.check_fit(shapes, rows, width)
            except ValueError as error:
                raise ValueError(f"models.{plan.name}.{error}") from None
        return network, shapes
    return network, jax.eval_shape(network.stored, variables)


def _network(plan: ModelPlan, module: nn.Module, context: RunContext) -> Network:
    replicated = plan.name in context.parallel.replicated
    return Network(module, view_name(plan.view), DTYPES[plan.dtype], replicated)


def _module(
    plan: ModelPlan, context: RunContext, earlier: Mapping[str, TrainedModel] | None = None
) -> tuple[nn.Module, Variables | None]:
    spec, names = dict(plan.model), context.datasets.class_names
    try:
        if "pretrained" in spec or FROM_MODEL in spec:
            source = _opened(spec, context, earlier)
            folder = Path(source.owner)
            for key in ("pretrained", FROM_MODEL):
                spec.pop(key, None)
            # The stored description says which architecture it is, so a name would say it twice.
            spec.pop("name", None)
            # The new head is random too, and models that are `like` one another get the same one.
            # What nothing is trained on teaches as it is, so a random head would teach.
            untrained = not plan.objective and not plan.restore
            spec.setdefault("new_head", False if untrained else None)
            if spec["new_head"] and untrained:
                raise ValueError("new_head=True makes a random head, and no objective trains it")
            seed = derived_seed(context.seed, "head", plan.seed_group)
            task = context.datasets.task
            if task.predicts != source.options.get("predicts", "example"):
                registry.check_predicts(str(source.options["name"]), task.predicts)
                spec["predicts"] = task.predicts
                source = predicting(source, task.predicts)
            module, variables = load.from_source(
                source,
                class_names=names,
                seed=seed,
                level=logging.DEBUG,
                problem_type=task.problem_type,
                **spec,
            )
            # A head that is made anew has no units yet.
            if spec["new_head"] or load.is_fresh(source, CLASSIFIER, len(names)):
                variables = _from_frequencies(variables, context)
            else:
                variables = _in_our_units(source, variables, task)
            _check_vocabulary(plan, module, context)
            check_inputs(plan, folder, context)
            return module, variables
        if (options := spec.get(EMBEDDINGS)) is not None:
            source = _opened(options, context, earlier)
            width = word_embeddings.width_of(word_embeddings.table_of(source), options.get("rank"))
            spec = word_embeddings.with_width(spec, width)
            if options.get(FROM_MODEL) is None or earlier is None:
                check_inputs(plan, Path(source.owner), context)
        # Only the data know how many classes and tokens there are.
        vocabulary = context.datasets.vocabulary_size(plan.view)
        spec |= {"num_classes": len(names)} | (
            {} if vocabulary is None else {"vocabulary_size": vocabulary}
        )
        if (predicts := context.datasets.task.predicts) != "example":
            spec["predicts"] = predicts
        return registry.build(spec), None
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None


def _opened(
    spec: Mapping[str, Any], context: RunContext, earlier: Mapping[str, TrainedModel] | None
) -> Published:
    """Opens what `pretrained` or `from_model` of a section names."""
    own = spec.get(FROM_MODEL)
    # An earlier model of the same run is read from its folder like any published one.
    folder = context.workdir / own if own else load.path_of(spec["pretrained"])
    # While shapes are checked, the model that it starts from isn't trained yet.
    if own is None or earlier is None:
        return load.open_weights(folder)
    return load.as_source(str(folder), earlier[own].network.module, earlier[own].variables)


def _from_frequencies(variables: Variables, context: RunContext) -> Variables:
    """Returns variables whose new head begins with the classes' frequencies, where the task wants
    that."""
    task, source = context.datasets.task, context.datasets.splits["train"]
    labels = source.labels[source.labelled]
    if not task.starts_blind or not len(labels):
        return variables
    blind = task.blind(labels, labels.shape[-1])
    assert blind is not None
    params: Any = dict(variables["params"])
    # DeiT's outputs are the mean of two heads.
    for name in (CLASSIFIER, f"distillation_{CLASSIFIER}"):
        head = params.get(name)
        # A module of the user's may have another head, and starts as it does.
        if isinstance(head, Mapping) and getattr(head.get("bias"), "shape", ()) == blind.shape:
            bias = np.asarray(jax.device_get(head["bias"]))
            params[name] = {**head, "bias": (bias + blind).astype(bias.dtype)}
    return {**variables, "params": params}


def _in_our_units(source: Published, variables: Variables, task: Task) -> Variables:
    """Returns variables whose outputs are what this run's models learn.

    Raises:
      ValueError: if the weights are of another task.
    """
    described = source.task or {}
    if described and described["name"] != task.name:
        raise ValueError(
            f"{source.owner} is a model for task {described['name']!r}, not {task.name!r}"
        )
    if (units := task.into_units()) is None:
        return variables
    # What others published says numbers as people read them; a run of ours knows its own units.
    theirs = read_task(described).into_units() if described.get("scale") else None
    scale, shift = theirs or (np.ones_like(units[0]), np.zeros_like(units[1]))
    if np.array_equal(scale, units[0]) and np.array_equal(shift, units[1]):
        return variables
    return rescale(variables, scale / units[0], (shift - units[1]) / units[0])


def _check_vocabulary(plan: ModelPlan, module: Any, context: RunContext) -> None:
    tokens, rows = (
        context.datasets.vocabulary_size(plan.view),
        getattr(module, "vocabulary_size", None),
    )
    # An index beyond the embedding would be clamped by jax, and no error raised.
    if rows is None and tokens is not None:
        raise ValueError("it reads images and its view gives tokens")
    # JAX raises no error for an index beyond the embedding, so it is checked here.
    if rows is not None and (tokens is None or tokens > rows):
        raise ValueError(f"its view has {tokens} tokens and its embedding {rows} rows")


def example(plan: ModelPlan, context: RunContext) -> Batch:
    """Returns a batch of one example, as the model sees it, for shapes."""
    return next(
        iter(
            context.datasets.evaluation_batches(
                context.datasets.splits["train"], [plan.view], context.processes
            )
        )
    )


def input_shapes(plan: ModelPlan, context: RunContext) -> dict[str, list[int]]:
    """Returns the shapes that the model reads of one example, by argument; texts at full length."""
    view = example(plan, context).views[view_name(plan.view)]
    # A batch of one example is padded to its own bucket, which may be shorter.
    if "max_length" in plan.view:
        return {name: [plan.view["max_length"]] for name in view if name != windows.MASK}
    return {name: list(array.shape[1:]) for name, array in view.items()}


def compression(plans: Sequence[ModelPlan]) -> Compression:
    """Returns how a group keeps the logits of its cached teachers; those who have any agree."""
    options = next((plan.cached_as for plan in plans if plan.cached), {})
    return Compression(**options)


def make_group(
    plans: Sequence[ModelPlan],
    networks: Mapping[str, Network],
    frozen: FrozenTeachers,
    source: Source,
    context: RunContext,
    conditions: Mapping[str, Condition | None],
) -> PeerGroup:
    """Builds the group of a model and its peers, or of one alone.

    Every option is checked here, against shapes and before anything compiles. The batches are those
    that the first model would see alone.

    Args:
      plans: the models' sections; peers agree in what they share.
      networks: the models', by name.
      frozen: frozen teachers of any of them; shapes in place of their variables will do.
      source: what the models learn from.
      context: data and seed.
      conditions: the models', by name.

    Raises:
      ValueError: naming the model and what doesn't fit.
    """
    # One batch holds the views of all students and teachers, which read the same examples.
    views = [*(plan.view for plan in plans), *frozen.views]
    # One real batch in every view that is read gives all shapes.
    known = {**frozen.outputs, **frozen.by_place}
    batches = context.datasets.evaluation_batches(source, views, context.processes, known)
    batch = next(iter(batches))
    outputs = {name: output_shapes(network, batch) for name, network in networks.items()}
    taught = frozen.shapes(batch)
    # A teacher that is stored for one peer is stored for all of them.
    cached = tuple(name for plan in plans for name in plan.cached)
    cached += tuple(name for name in taught if view_of(name) in known)
    models: dict[str, ModelTraining] = {}
    mixing = None
    for plan in plans:
        try:
            # Each model's terms know its own teachers only.
            spec = _term_spec(
                plan, networks, outputs, taught, frozen.view_names, batch, source, context, cached
            )
            objective = make_objective(plan.objective, spec)
            for teacher, layer in spec.reads:
                frozen.reads.setdefault(teacher, set()).add(layer)
            if (condition := conditions[plan.name]) is not None:
                features = {condition.output} & taught[condition.teacher].features.keys()
                frozen.reads.setdefault(condition.teacher, set()).update(features)
            mixing = _make_mixing(plan, objective, bool(frozen.teachers), context)
            # A mean over no label at all would be 0 in silence.
            labelled = [name for name, term in objective.terms.items() if term.labelled]
            made = context.datasets.task.masks is not None
            if labelled and not made and not source.labelled.any():
                raise ValueError(
                    f"objective {labelled[0]!r} learns from labels, and {source.name!r} has none"
                )
            # Steps are counted on the training split, as in the training itself.
            optimizer, learning_rate = make_optimizer(
                plan.training["optimizer"],
                plan.training["schedule"],
                total_steps(len(context.datasets.splits["train"]), plan.training),
            )
            if not plan.model.get(EMBEDDINGS, {}).get("trainable", True):
                optimizer = word_embeddings.keep(optimizer)
        except ValueError as error:
            raise ValueError(f"models.{plan.name}: {error}") from None
        models[plan.name] = ModelTraining(
            networks[plan.name],
            objective,
            optimizer,
            plan.decay,
            conditions[plan.name],
            plan.peers,
            learning_rate,
        )
    seed = derived_seed(context.seed, "train", plans[0].seed_group)
    repeat = context.datasets.repeated_batches(
        source, [*views, *frozen.unread], plans[0].training, frozen.outputs
    )
    return PeerGroup(models, seed, mixing, context.datasets.task, repeat)


def output_shapes(network: Network, batch: Batch) -> ModelOutput:
    """Returns a new model's output on a batch, as shapes and dtypes."""
    return jax.eval_shape(lambda x: network(network.init(jax.random.key(0), x), x), batch)


def _make_mixing(
    plan: ModelPlan, objective: Objective, taught: bool, context: RunContext
) -> Mixing | None:
    """Makes the mixing of a model's section; refuses it where something it learns from
    forbids it.
    """
    datasets = context.datasets
    classes = datasets.num_classes if datasets.task.one_class else None
    mixing = make_mixing(plan.training.get("mixing"), datasets.modality, classes)
    if mixing is None:
        return None
    # The least certain candidate is found by asking the teachers.
    if mixing.candidates > 1 and not taught:
        raise ValueError(
            "training.mixing.candidates must be 1 without a teacher to choose among them"
        )
    # A term with state keeps something for each example, which a mix of two doesn't have.
    if remembered := jax.eval_shape(objective.init, jax.random.key(0))[1]:
        names = ", ".join(remembered)
        raise ValueError(f"{names} remembers each example as it is: training.mixing must be None")
    return mixing


def _term_spec(
    plan: ModelPlan,
    networks: Mapping[str, Network],
    outputs: Mapping[str, ModelOutput],
    taught: Mapping[str, ModelOutput],
    view_names: Mapping[str, str],
    batch: Batch,
    source: Source,
    context: RunContext,
    cached: tuple[str, ...],
) -> TermSpec:
    """Says what one model's terms may read: its own teachers only, whoever else is in its group."""
    view, classes = networks[plan.name].view, context.datasets.num_classes
    teachers = {name: taught[name] for name in plan.teachers}
    views = {name: view_names[name] for name in plan.teachers}
    # Peers and averages are networks in training, so their shapes are the students' own.
    live = {f"{PEER}{peer}": peer for peer in plan.peers}
    live |= {f"{EMA}{plan.name}": plan.name} if plan.decay is not None else {}
    for name, model in live.items():
        teachers[name], views[name] = outputs[model], networks[model].view
    for name, output in teachers.items():
        # A teacher of other classes would only fail in a broadcast, or worse, not at all. Where
        # the data don't say how many outputs there are, terms say what they can't compare.
        named = context.datasets.task.named
        if (found := output.logits.shape[-1]) != classes and named:
            raise ValueError(f"teacher {name!r} has {found} classes, the data has {classes}")
    tokens = batch.views[view].get("input_ids")
    return TermSpec(
        view,
        outputs[plan.name],
        teachers,
        None if tokens is None or windows.MASK in batch.views[view] else tokens.shape[1],
        views,
        source.labels,
        classes,
        # Nobody can be asked about a changed example by outputs on it.
        jax.eval_shape(dict, {name: v for name, v in batch.views.items() if LOGITS not in v}),
        cached,
        context.datasets.task,
    )


def total_steps(examples: int, training: Mapping[str, Any]) -> int:
    """Returns the optimizer steps in `epochs` passes over the examples; at least one."""
    # A fraction of an epoch over few examples still takes one step.
    return max(1, math.ceil(examples * training["epochs"] / training["batch_size"]))
