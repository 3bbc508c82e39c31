"""Trains the models of an experiment, or finds them: restored, used as they are, or resumed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from kd_jax.config.schema import ModelPlan
from kd_jax.core.json_files import as_json
from kd_jax.core.pytree import count_parameters, fingerprint
from kd_jax.core.rng import fold_name, stream
from kd_jax.core.types import Variables
from kd_jax.distiller import Distiller
from kd_jax.experiments.build import build, example, input_shapes, make_group, total_steps
from kd_jax.experiments.scoring import Selection
from kd_jax.models.projectors.conditioning import CONDITION
from kd_jax.models.registry import describe
from kd_jax.teachers import conditioned_student
from kd_jax.teachers.frozen import freeze
from kd_jax.training import saved_model
from kd_jax.training.checkpoints import Checkpoints
from kd_jax.training.context import RunContext
from kd_jax.training.loop import Intervals, train
from kd_jax.training.metrics_writer import MetricsWriter
from kd_jax.training.progress import StepProgress
from kd_jax.training.saved_model import SavedModel
from kd_jax.training.state import TrainState
from kd_jax.training.step import PeerGroup
from kd_jax.training.trained_model import TrainedModel

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
        self._conditions = {
            plan.name: conditioned_student.build_condition(
                plan, *self._built[plan.name], teachers, context
            )
            for plan in plans
        }

    def find(self) -> dict[str, SavedModel] | None:
        """Returns the group's models where nothing has to be trained for them, else None.

        They are in the run's folder, or restored from another run, or used as they are.
        """
        found = {plan.name: self._find(plan) for plan in self._plans}
        # Peers are trained together, so one that is missing brings back the whole group.
        done = {name: each for name, each in found.items() if each is not None}
        return done if len(done) == len(found) else None

    def _find(self, plan: ModelPlan) -> SavedModel | None:
        # A run that was stopped between two models finds the first one finished.
        done = saved_model.load(self._context.workdir / plan.name)
        if done is not None:
            return done
        if plan.restore:
            return self._restore(plan)
        if plan.objective:
            return None
        # A model without an objective teaches as it is, and is saved like any other.
        initial = self._built[plan.name][1]
        done = SavedModel(initial, self._describe(plan, initial, step=0, seconds=0.0))
        self.save(plan, done)
        return done

    def _restore(self, plan: ModelPlan) -> SavedModel:
        """Takes a finished model over from another run, if it is what the section describes."""
        done = saved_model.load_required(Path(str(plan.restore)))
        ours = self._describe(plan, done.variables, step=0, seconds=0.0)
        # Weights that fit by chance would give wrong results in silence.
        for key in ("spec", "view", "class_names"):
            if done.description[key] != ours[key]:
                raise ValueError(
                    f"models.{plan.name}: {plan.restore} has {key} {done.description[key]}, the"
                    f" config {ours[key]}"
                )
        conditioned_student.check_restored(plan, done.description, self._teachers)
        # Equal sections can still give other shapes, with another vocabulary for example.
        network, batch = self._built[plan.name][0], example(plan, self._context)
        # Shapes alone: nothing is drawn for a comparison.
        expected = jax.eval_shape(network.init, jax.random.key(0), batch)
        found = jax.tree.leaves(done.variables)
        for (path, wanted), leaf in zip(jax.tree.leaves_with_path(expected), found, strict=True):
            if wanted.shape != leaf.shape:
                raise ValueError(
                    f"models.{plan.name}: {plan.restore} has shape {leaf.shape} at {path}, not"
                    f" {wanted.shape}"
                )
        log.info(
            "%s: restored from %s, %s", plan.name, plan.restore, done.description["fingerprint"]
        )
        # What the earlier run wrote down stays; ours only fills in what it didn't know yet.
        done = replace(done, description=ours | dict(done.description))
        self.save(plan, done)
        return done

    def fit(self) -> dict[str, SavedModel]:
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
        cached = [name for plan in plans for name in plan.cached]
        frozen = freeze(self._teachers, cached, source, context, mixed=bool(training.get("mixing")))
        networks = {name: network for name, (network, _) in self._built.items()}
        group = make_group(plans, networks, frozen, source, context, self._conditions)
        # The same compiled step as in the Python API.
        distiller = Distiller.of_group(group, frozen.teachers, context.parallel)
        # Placed before anything is restored, as the template's shardings say where to restore to.
        state = context.parallel.place(self._initial_state(group))
        views = [*(plan.view for plan in plans), *frozen.views]
        batches = context.datasets.training_batches(source, views, training, group.seed)
        # Epochs are of the training split, so that another set makes no run longer or shorter.
        steps = total_steps(len(context.datasets.splits["train"]), training)
        keep = {key: context.checkpoint[key] for key in ("keep_latest", "keep_best")}
        with ExitStack() as stack:
            checkpoints = stack.enter_context(closing(Checkpoints(folder / "checkpoints", **keep)))
            # The state is donated to the first step; its structure and shardings are still needed
            # to restore.
            template = state
            state, meta = checkpoints.restore_latest(state) or (state, {"step": 0, "seconds": 0.0})
            # The batches go on exactly where the saved state stopped.
            if "position" in meta:
                batches.set_state(meta["position"])
                log.info(
                    "%s: resumed at step %d of %d", ", ".join(group.models), meta["step"], steps
                )
            writers, progress = self._outputs(stack, meta["step"], steps)
            seconds = train(
                state,
                advance=distiller.advance,
                learning_rates=_learning_rates(group),
                batches=batches,
                intervals=Intervals(
                    steps, context.checkpoint["every_steps"], context.logging["every_steps"]
                ),
                evaluate=self._selection(group),
                checkpoints=checkpoints,
                writers=writers,
                progress=progress,
                stop=context.stop,
                seconds=meta["seconds"],
            )
            # The last state is not always the best one on the selection split.
            best = context.checkpoint["use"] == "best"
            restore = checkpoints.restore_best if best else checkpoints.restore_latest
            chosen = restore(template)
        assert chosen is not None, "training ends with a checkpoint"
        done = {plan.name: self._trained(plan, *chosen, seconds) for plan in plans}
        for plan in plans:
            self.save(plan, done[plan.name])
        if jax.process_count() > 1:
            # Another process may read the models as soon as this returns.
            multihost_utils.sync_global_devices(f"{folder.name} finished")
        return done

    def _initial_state(self, group: PeerGroup) -> TrainState:
        key, models = stream(self._context.seed, "objective"), {}
        for plan in self._plans:
            variables = self._built[plan.name][1]
            model = group.models[plan.name]
            # Terms of models that are `like` one another start alike as well.
            models[plan.name] = model.init(variables, fold_name(key, plan.seed_group))
        return TrainState(jax.numpy.zeros((), "int32"), models)

    def _outputs(
        self, stack: ExitStack, step: int, steps: int
    ) -> tuple[dict[str, MetricsWriter], StepProgress]:
        """Returns where metrics go, by model, and what people see; the stack closes them."""
        names = [plan.name for plan in self._plans]
        workdir, batch_size = self._context.workdir, self._plans[0].training["batch_size"]
        writers = {name: MetricsWriter(workdir, name, resumed_at=step) for name in names}
        progress = StepProgress(
            ", ".join(names), total_steps=steps, start=step, batch_size=batch_size
        )
        # On the stack, so that files and terminal are left in order after an error too.
        for each in (*writers.values(), progress):
            stack.enter_context(closing(each))
        return writers, progress

    def _selection(self, group: PeerGroup) -> Callable[[TrainState], dict[str, dict[str, float]]]:
        """Evaluates every model of a state on the selection split."""
        # Made once for the whole training, because each of them compiles.
        selections = {
            plan.name: Selection(group.models[plan.name].network, plan, self._context)
            for plan in self._plans
        }

        def evaluate(state: TrainState) -> dict[str, dict[str, float]]:
            return {
                name: selection(state.models[name].variables())
                for name, selection in selections.items()
            }

        return evaluate

    def _trained(
        self, plan: ModelPlan, state: TrainState, meta: Mapping[str, Any], seconds: float
    ) -> SavedModel:
        # Optimizer and terms' parameters stay behind: a finished model is its variables.
        own = state.models[plan.name]
        variables = own.variables()
        description = self._describe(plan, variables, step=meta["step"], seconds=round(seconds, 1))
        selection = meta["selection"]
        # A checkpoint of a stopped run has no scores.
        description["selection_accuracy"] = selection[plan.name]["accuracy"] if selection else None
        # The map is trained among the terms, and leaves them here for a file of its own.
        condition_map = own.term_params.get(CONDITION, {})
        description |= conditioned_student.described(plan, condition_map, self._teachers)
        return SavedModel(variables, description, condition_map)

    def save(self, plan: ModelPlan, done: SavedModel) -> None:
        """Saves a model in the run's folder, and with it the tokenizer that it needs."""
        folder = self._context.workdir / plan.name
        # The model means nothing without the tokenizer, so both lie in one folder.
        if "tokenizer" in plan.view and jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer = self._context.datasets.tokenizer(plan.view)
            tokenizer.save(str(folder / "tokenizer.json"))
        done.save(folder)

    def ready(self, done: Mapping[str, SavedModel]) -> dict[str, TrainedModel]:
        """Returns the group's models, on the devices, ready to teach and to be evaluated."""
        models = {}
        for plan in self._plans:
            # Outputs of a restored teacher are kept where it was trained, so that many runs share
            # them.
            home = Path(plan.restore or self._context.workdir / plan.name)
            own = done[plan.name]
            variables, condition_map = self._context.parallel.place(
                (own.variables, own.condition_map)
            )
            models[plan.name] = TrainedModel(
                plan,
                self._built[plan.name][0],
                variables,
                own.description,
                home,
                (plan.view,),
                self._conditions[plan.name],
                condition_map,
            )
        return models

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
            "class_names": list(datasets.splits["train"].class_names),
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
    return trainer.ready(trainer.find() or trainer.fit())


def _learning_rates(group: PeerGroup) -> dict[str, Callable[[int], Any]]:
    rates = {name: model.learning_rate for name, model in group.models.items()}
    return {name: rate for name, rate in rates.items() if rate is not None}
