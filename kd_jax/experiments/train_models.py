"""Trains the models of an experiment, or finds them: restored, used as they are, or resumed."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kd_jax.config.schema import ModelPlan
from kd_jax.core.json_files import as_json
from kd_jax.core.pytree import count_parameters, fingerprint, not_finite
from kd_jax.core.rng import fold_name, stream
from kd_jax.core.shared_files import written
from kd_jax.core.types import Batch, PyTree, Teacher, Variables
from kd_jax.data.run_datasets import view_name
from kd_jax.data.source import Source
from kd_jax.distiller import Distiller
from kd_jax.experiments import out_of_memory
from kd_jax.experiments.build import build, compression, input_shapes, make_group, total_steps
from kd_jax.experiments.check_inputs import check_inputs
from kd_jax.experiments.restore import read_restored
from kd_jax.experiments.scoring import Selection, described, judge, tuned_task
from kd_jax.models.network import Network
from kd_jax.models.projectors.conditioning import CONDITION
from kd_jax.models.registry import describe
from kd_jax.teachers import conditioned_student
from kd_jax.teachers.frozen import FrozenTeachers, freeze, logits_on, shapes_of
from kd_jax.teachers.repeated import Repeated
from kd_jax.training import trained_model
from kd_jax.training.checkpoints import Checkpoints, abstract
from kd_jax.training.context import RunContext
from kd_jax.training.loop import Intervals, train
from kd_jax.training.machine_use import MachineUse
from kd_jax.training.metrics_writer import MetricsWriter
from kd_jax.training.profile import ProfiledTraining
from kd_jax.training.progress import StepProgress
from kd_jax.training.state import TrainState
from kd_jax.training.step import PeerGroup
from kd_jax.training.trained_model import Contents, Held, TrainedModel

log = logging.getLogger("kd_jax")


class ModelTrainer:
    """Makes the models of one group: finds them finished, restores them, or trains them.

    Args:
      plans: the section of a model, and of those that are trained together with it.
      teachers: the finished models that any of them learns from, by name.
      context: what all models of the run share.

    Raises:
      ValueError: for anything in a section that doesn't fit the data or the teachers.
    """

    def __init__(
        self,
        plans: Sequence[ModelPlan],
        teachers: Mapping[str, TrainedModel],
        context: RunContext,
    ):
        self._plans, self._teachers, self._context = plans, teachers, context
        # Everything is built here, so that what doesn't fit is refused before training.
        self._built = {plan.name: build(plan, context) for plan in plans}
        for name, (_, variables) in self._built.items():
            _check_finite(name, variables, "the weights that it starts from")
        self._conditions = {
            plan.name: conditioned_student.build_condition(
                plan, *self._built[plan.name], teachers, context
            )
            for plan in plans
        }

    def find(self) -> dict[str, TrainedModel] | None:
        """Returns the group's models where nothing has to be trained for them, else None.

        They are in the run's folder, or restored from another run, or used as they are.
        """
        found = {plan.name: self._find(plan) for plan in self._plans}
        # Peers are trained together, so one that is missing brings back the whole group.
        done = {name: each for name, each in found.items() if each is not None}
        return done if len(done) == len(found) else None

    def _find(self, plan: ModelPlan) -> TrainedModel | None:
        # A run that was stopped between two models finds the first one finished.
        folder = self._context.workdir / plan.name
        done = trained_model.load(folder)
        if done is not None:
            check_inputs(plan, folder, self._context)
            return self._model(plan, done)
        if plan.restore:
            return self._restore(plan)
        if plan.objective:
            return None
        # A model without an objective teaches as it is, and is saved like any other.
        initial = self._built[plan.name][1]
        description = self._describe(plan, initial, step=0, seconds=0.0)
        description |= self._selection_of(plan, initial)
        return self.save(plan, Contents(initial, description, {}))

    def _restore(self, plan: ModelPlan) -> TrainedModel:
        """Takes a finished model over from another run, if it is what the section describes."""
        done = read_restored(plan, self._built[plan.name][0], self._context)
        conditioned_student.check_restored(plan, done.description, self._teachers)
        ours = self._describe(plan, done.variables, step=0, seconds=0.0)
        log.info(
            "%s: restored from %s, %s", plan.name, plan.restore, done.description["fingerprint"]
        )
        # What an earlier run of the same sweep trained is as good as trained here.
        ours |= self._selection_of(plan, done.variables, trained=self._of_this_sweep(plan))
        # What the earlier run wrote down stays; ours only fills in what it didn't know yet.
        return self.save(plan, done._replace(description=ours | done.description))

    def _selection_of(
        self, plan: ModelPlan, variables: Variables, *, trained: bool = False
    ) -> dict[str, Any]:
        """Evaluates a model that isn't trained here on the selection split; see `judge`."""
        network, context = self._built[plan.name][0], self._context
        metrics = Selection(network, plan, context)(context.parallel.place(variables, plan.name))
        return judge(plan, metrics, context, trained=trained)

    def teach(self) -> None:
        """Keeps the outputs of the group's cached teachers on what it learns from, and their logits
        on what it is evaluated on: nobody has to ask them later."""
        datasets = self._context.datasets
        self._freeze(datasets.training_source(self._plans[0].data))
        splits = ("selection", "evaluation") if datasets.task.meets_teachers else ("evaluation",)
        cached = sorted({name for plan in self._plans for name in plan.cached})
        asked = [self._teachers[name] for name in cached if self._teachers[name].stored is None]
        for teacher in asked:
            for split in splits:
                size = self._plans[0].training["batch_size"]
                logits_on(teacher, datasets.splits[split], self._context, size)

    def _freeze(self, source: Source) -> FrozenTeachers:
        networks = {name: network for name, (network, _) in self._built.items()}
        mixed = bool(self._plans[0].training.get("mixing"))
        cached, repeated = self._kept(networks, source)
        return freeze(
            self._teachers,
            cached,
            source,
            self._context,
            mixed=mixed,
            repeated=repeated,
            compression=compression(self._plans),
        )

    def fit(self) -> dict[str, TrainedModel]:
        """Trains the group to the end, or goes on from its newest checkpoint.

        What peers share, their checkpoints among it, is in the first one's section and folder. Each
        has taken the seconds that all of them took together.

        Returns:
          The models of the chosen checkpoint, by name; they are saved.

        Raises:
          ValueError: for anything that doesn't fit, before anything is trained.
          Interrupted: after SIGTERM; the same call resumes.
          Diverged: on a loss or gradient that isn't finite.
        """
        plans, context = self._plans, self._context
        # Peers agree in all that is shared, so the first one speaks for the group.
        training, folder = plans[0].training, context.workdir / plans[0].name
        context.parallel.check_batch(training["batch_size"], training["accumulate"])
        # Peers share their batches, so the first one's data are everybody's.
        source = context.datasets.training_source(plans[0].data)
        networks = {name: network for name, (network, _) in self._built.items()}
        frozen = self._freeze(source)
        group = make_group(plans, networks, frozen, source, context, self._conditions)
        # The same compiled step as in the Python API.
        distiller = Distiller.of_group(group, frozen.teachers, context.parallel)
        views = [*(plan.view for plan in plans), *frozen.views]
        batches = context.datasets.training_batches(
            source, views, training, group.seed, frozen.outputs, frozen.by_place, frozen.unread
        )
        # Epochs are of the training split, so that another set makes no run longer or shorter.
        steps = total_steps(len(context.datasets.splits["train"]), training)
        keep = {key: context.checkpoint[key] for key in ("keep_latest", "keep_best")}
        with ExitStack() as stack:
            checkpoints = stack.enter_context(closing(Checkpoints(folder / "checkpoints", **keep)))
            state, meta, template = self._begin(group, checkpoints)
            # The batches go on exactly where the saved state stopped.
            if "position" in meta:
                batches.set_state(meta["position"])
                log.info(
                    "%s: resumed at step %d of %d", ", ".join(group.models), meta["step"], steps
                )
            writers, progress = self._outputs(stack, meta["step"], steps)
            explained = out_of_memory.explained(state, frozen.teachers)
            seconds = train(
                state,
                advance=self._profiled(stack, explained(distiller.advance), meta["step"]),
                learning_rates=_learning_rates(group),
                batches=batches,
                intervals=Intervals(
                    steps,
                    context.checkpoint["every_steps"],
                    context.logging["every_steps"],
                    training.get("patience"),
                ),
                evaluate=self._selections(group),
                checkpoints=checkpoints,
                writers=writers,
                progress=progress,
                stop=context.stop,
                seconds=meta["seconds"],
                blame=partial(_teacher_at_fault, frozen.teachers),
                rank=context.datasets.task.rank,
                machine=MachineUse(training["batch_size"], meta["step"]),
            )
            # The last state is not always the best one on the selection split.
            best = context.checkpoint["use"] == "best"
            restore = checkpoints.restore_best if best else checkpoints.restore_latest
            chosen = restore(template)
        assert chosen is not None, "training ends with a checkpoint"
        done = {plan.name: self.save(plan, self._trained(plan, *chosen, seconds)) for plan in plans}
        # Another process may read the models as soon as this returns.
        written(*(context.workdir / plan.name / "finished.json" for plan in plans))
        return done

    def _kept(
        self, networks: Mapping[str, Network], source: Source
    ) -> tuple[dict[str, set[str]], Repeated | None]:
        """Returns the teachers whose outputs are computed once, with the features that terms read
        of them; and the batches that are asked about, where they come again."""
        cached = {name for plan in self._plans for name in plan.cached}
        if not cached:
            return {}, None
        # Terms say what they read when they are bound, for which shapes will do.
        shapes, context = shapes_of(self._teachers, source), self._context
        group = make_group(self._plans, networks, shapes, source, context, self._conditions)
        kept = {name: shapes.reads.get(name, set()) for name in sorted(cached)}
        if group.repeat is None:
            return kept, None
        training = self._plans[0].training
        views = [*(plan.view for plan in self._plans), *shapes.views]
        datasets = context.datasets
        batches = datasets.training_batches(source, views, training, group.seed)
        told = json.dumps(
            as_json(
                [
                    group.seed,
                    group.repeat,
                    [training[key] for key in ("batch_size", "accumulate")],
                    training.get("mixing"),
                    datasets.augmentation,
                    sorted(f"{view_name(v)} {datasets.tokenizer_identity(v)}" for v in views),
                ]
            )
        )
        # A short training doesn't come to the end of them.
        steps = min(group.repeat, total_steps(len(datasets.splits["train"]), training))
        repeated = Repeated(batches, steps, training, group.seed, group.mixing, told)
        return kept, repeated

    def _initial_state(self, group: PeerGroup) -> TrainState:
        key, models = stream(self._context.seed, "objective"), {}
        for plan in self._plans:
            variables = self._built[plan.name][1]
            model = group.models[plan.name]
            # Terms of models that are `like` one another start alike as well.
            models[plan.name] = model.init(variables, fold_name(key, plan.seed_group))
        return TrainState(jax.numpy.zeros((), "int32"), models)

    def _begin(
        self, group: PeerGroup, checkpoints: Checkpoints
    ) -> tuple[TrainState, dict[str, Any], PyTree]:
        """Returns the first state or that of the newest checkpoint, what is known of it, and the
        shapes and shardings by which others are restored."""
        # Placed before anything is restored, as its shardings say where to restore to.
        state = self._context.parallel.place(self._initial_state(group))
        template = abstract(state)
        # The devices hold what is trained once: the first weights are in the state now.
        self._built = {name: (network, {}) for name, (network, _) in self._built.items()}
        if not checkpoints.steps():
            return state, {"step": 0, "seconds": 0.0}, template
        # Before it is restored, so that no device holds two states.
        del state
        found = checkpoints.restore_latest(template)
        assert found is not None, "there is a checkpoint"
        return *found, template

    def _outputs(
        self, stack: ExitStack, step: int, steps: int
    ) -> tuple[dict[str, MetricsWriter], StepProgress]:
        """Returns where metrics go, by model, and what people see; the stack closes them."""
        names = [plan.name for plan in self._plans]
        workdir, batch_size = self._context.workdir, self._plans[0].training["batch_size"]
        beside = self._context.writers
        writers = {
            name: MetricsWriter(workdir, name, resumed_at=step, writers=beside) for name in names
        }
        progress = StepProgress(
            ", ".join(names), total_steps=steps, start=step, batch_size=batch_size
        )
        # On the stack, so that files and terminal are left in order after an error too.
        for each in (*writers.values(), progress):
            stack.enter_context(closing(each))
        return writers, progress

    def _profiled(
        self, stack: ExitStack, advance: Callable[..., Any], step: int
    ) -> Callable[..., Any]:
        """Returns what takes the steps, and profiles those that were asked for."""
        steps, names = self._context.profile, [plan.name for plan in self._plans]
        if steps is None:
            return advance
        folder = self._context.workdir / names[0] / "profile"
        profiled = ProfiledTraining(advance, steps, folder, name=", ".join(names), resumed_at=step)
        return stack.enter_context(closing(profiled))

    def _selections(
        self, group: PeerGroup
    ) -> Callable[[TrainState], dict[str, dict[str, float | None]]]:
        """Evaluates every model of a state on the selection split."""
        # Made once for the whole training, because each of them compiles.
        selections = {
            plan.name: Selection(
                group.models[plan.name].network,
                plan,
                self._context,
                {name: self._teachers[name] for name in plan.teachers},
            )
            for plan in self._plans
        }

        def evaluate(state: TrainState) -> dict[str, dict[str, float | None]]:
            return {
                name: selection(state.models[name].variables())
                for name, selection in selections.items()
            }

        return evaluate

    def _trained(
        self, plan: ModelPlan, state: TrainState, meta: Mapping[str, Any], seconds: float
    ) -> Contents:
        # Optimizer and terms' parameters stay behind: a finished model is its variables.
        own = state.models[plan.name]
        variables = own.variables()
        description = self._describe(plan, variables, step=meta["step"], seconds=round(seconds, 1))
        # A checkpoint of a stopped run has no scores.
        description |= described((meta["selection"] or {}).get(plan.name) or {})
        # The map is trained among the terms, and leaves them here for a file of its own.
        condition_map = own.term_params.get(CONDITION, {})
        description |= conditioned_student.described(plan, condition_map, self._teachers)
        return Contents(variables, description, condition_map)

    def save(self, plan: ModelPlan, contents: Contents) -> TrainedModel:
        """Saves a model in the run's folder, with the tokenizer that it reads texts with."""
        tokenizer = (
            self._context.datasets.tokenizer(plan.view).to_str(pretty=True)
            if "tokenizer" in plan.view
            else None
        )
        model = self._model(plan, contents)
        if self._context.datasets.task.tunes:
            # Whoever predicts with the model alone needs what was found for it.
            told = as_json(tuned_task(model, self._context).describe())
            contents = contents._replace(description={**contents.description, "task": told})
            model = replace(model, description=contents.description)
        trained_model.save(self._context.workdir / plan.name, contents, tokenizer)
        return model

    def _model(self, plan: ModelPlan, contents: Contents) -> TrainedModel:
        """Returns a model, ready to teach and to be evaluated."""
        _check_finite(plan.name, contents.variables, "its weights")
        place = partial(self._context.parallel.place, model=plan.name)
        return TrainedModel(
            plan,
            self._built[plan.name][0],
            Held(contents.variables, place),
            contents.description,
            self._home(plan),
            (plan.view,),
            self._conditions[plan.name],
            place(contents.condition_map),
        )

    def _home(self, plan: ModelPlan) -> Path:
        """Returns where a model's outputs are kept: in this run's folder, or where the config says.

        Those of a teacher that another run of the same sweep trained are kept there, so that all
        runs of the sweep share them.
        """
        if (shared := self._context.checkpoint.get("outputs_dir")) is not None:
            return Path(shared).expanduser() / plan.name
        own = self._context.workdir / plan.name
        return Path(str(plan.restore)) if self._of_this_sweep(plan) else own

    def _of_this_sweep(self, plan: ModelPlan) -> bool:
        """Tells whether a model is restored from another run of the same sweep."""
        own, folder = self._context.workdir / plan.name, Path(plan.restore or "")
        same = folder.parent.parent == own.parent.parent
        return bool(plan.restore) and same and (own.parent.parent / "config.json").exists()

    def _describe(
        self, plan: ModelPlan, variables: Variables, *, step: int, seconds: float
    ) -> dict[str, Any]:
        """Says of a model what `finished.json` records."""
        datasets = self._context.datasets
        # All that predicting and exporting need is written down here; they never see the config.
        plain = {
            "spec": plan.model,
            "view": plan.view,
            "dtype": plan.dtype,
            "architecture": describe(self._built[plan.name][0].module),
            "inputs": input_shapes(plan, self._context),
            "columns": datasets.columns,
        }
        # As JSON has them, so that a comparison with a stored description sees no tuples.
        return {key: as_json(value) for key, value in plain.items()} | {
            "class_names": list(datasets.class_names),
            "task": as_json(datasets.task.describe()),
            "tokenizer": datasets.tokenizer_identity(plan.view),
            "parameters": count_parameters(variables["params"]),
            "fingerprint": fingerprint(variables),
            "step": step,
            "train_seconds": seconds,
        }


def obtain(
    plans: Sequence[ModelPlan], teachers: Mapping[str, TrainedModel], context: RunContext
) -> dict[str, TrainedModel]:
    """Finds, restores or trains the models of one group; see `ModelTrainer`."""
    trainer = ModelTrainer(plans, teachers, context)
    # What is finished is found first, and only the rest is trained.
    return trainer.find() or trainer.fit()


def _teacher_at_fault(teachers: Mapping[str, Teacher], batch: Batch) -> str | None:
    """Names the first frozen teacher that gives NaN, or plus infinity, for a batch of microbatches.

    A logit of minus infinity rules a class out, which is allowed.
    """
    # In a cluster each process holds only its own rows, so no single one can tell.
    if jax.process_count() > 1:
        return None
    for name, teacher in teachers.items():
        for number in range(len(batch.valid)):
            rows = jax.tree.map(lambda leaf, number=number: leaf[number], batch)
            logits = np.asarray(teacher(rows).logits, np.float64)[np.asarray(rows.valid)]
            if np.isnan(logits).any() or np.isposinf(logits).any():
                return name
    return None


def _check_finite(name: str, variables: Variables, where: str) -> None:
    """Refuses weights with NaN or infinity, which would be blamed on whoever learns from them."""
    if leaves := not_finite(variables):
        raise ValueError(
            f"models.{name}: {where} hold numbers that aren't finite, first in {leaves[0]}"
        )


def _learning_rates(group: PeerGroup) -> dict[str, Callable[[int], Any]]:
    rates = {name: model.learning_rate for name, model in group.models.items()}
    return {name: rate for name, rate in rates.items() if rate is not None}
