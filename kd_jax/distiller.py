"""The Python API of distillation: a student, its teacher, losses and an optimizer become one step.

    distiller = Distiller(student, teacher, losses=..., optimizer=optax.adamw(1e-3))
    state = distiller.init(0, example_batch)
    for batch in batches:
        state, metrics = distiller.step(state, batch)

Experiments from configs are trained by this same step.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from kd_jax.core.rng import derived_seed, fold_name, stream
from kd_jax.core.types import Batch, Mean, PyTree, Teacher
from kd_jax.models.adapters import FunctionModel, LinenModel, NnxModel
from kd_jax.models.weights import load as weights
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms.term import TermSpec
from kd_jax.tasks import CLASSIFICATION, Task, make_task
from kd_jax.teachers.ensemble import Ensemble
from kd_jax.training.evaluate import eval_step, evaluate
from kd_jax.training.sharding import Parallel, make_parallel, wait_where_cores_are_few
from kd_jax.training.state import TrainState
from kd_jax.training.step import Metrics, ModelTraining, PeerGroup, train_step

STUDENT, TEACHER = "student", "teacher"
"""Names of the models where the user gives none."""

VIEW, TEACHER_VIEW = "inputs", "teacher_inputs"

Where = int | str | Callable[[Any], Any]
"""Where a part of a batch is: a position in a tuple, a key of a mapping, or a function of it."""


class Distiller:
    """Trains a student on what a frozen teacher says, one compiled step at a time.

    Args:
      student: a Linen module, a Linen module with variables to start from, or an NNX module. It
        returns logits `[B, K]`, `(logits, features)` or an object with `logits`.
      teacher: one of: `(Linen module, variables)`; an NNX module; a function of the inputs,
        traceable by jax; the folder of a Hugging Face model; a list of these, whose probabilities
        are averaged; or a mapping of names to these, of which each loss picks one by `source`.
        None: there is no teacher, as for the baseline.
      losses: name -> a term of `kd_jax.terms`, or `dict(term="soft_target_kl", weight=..., ...)`.
        The total is the sum of weight * mean. A term names features by the path of their submodule.
      optimizer: any optax transformation.
      inputs: where the student's inputs are in a batch, 0 in a tuple and "inputs" in a mapping by
        default. Inputs that are a mapping are passed as keywords, a tuple as positions.
      labels: where the labels are: [B] classes or [B, K] distributions; classes below 0 are missing
        labels. By default 1 in a tuple and "labels" in a mapping; without any, terms that need
        labels are refused.
      teacher_inputs: where the teacher's inputs are, if they aren't the student's.
      accumulate: microbatches in a batch, whose gradients are summed before one update.
      train_labels: [N] classes of all training examples, for terms that remember examples; batches
        must then be mappings that hold each example's position as "index".
      parallel: how the step is spread over devices; None: under jit over all that are visible.
      task: what the student predicts, as `task` in a config, or a `kd.tasks.Task`.

    Raises:
      ValueError: in one line, for a student, teacher or optimizer of another kind.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any = None,
        *,
        losses: Mapping[str, Any],
        optimizer: optax.GradientTransformation,
        inputs: Where | None = None,
        labels: Where | None = None,
        teacher_inputs: Where | None = None,
        accumulate: int = 1,
        train_labels: np.ndarray | None = None,
        parallel: Parallel | None = None,
        task: str | Mapping[str, Any] | Task = "classification",
    ):
        if not isinstance(optimizer, optax.GradientTransformation):
            raise ValueError(
                f"optimizer must be an optax transformation, got {type(optimizer).__name__}"
            )
        self.network = as_student(student)
        view = VIEW if teacher_inputs is None else TEACHER_VIEW
        self.task = task if isinstance(task, Task) else make_task(task)
        self._given_teachers = as_teachers(teacher, view, self.task)
        self._losses, self._optimizer = dict(losses), optimizer
        # Batches are read when they come, so these are only remembered here.
        self._where = {"inputs": inputs, "labels": labels, "teacher_inputs": teacher_inputs}
        self._accumulate, self._train_labels = accumulate, train_labels
        self._parallel = parallel
        self._group: PeerGroup | None = None
        self._compiled: Callable[..., tuple[TrainState, Metrics]] | None = None
        self.teachers: dict[str, Teacher] = {}

    @classmethod
    def of_group(
        cls, group: PeerGroup, teachers: Mapping[str, Teacher], parallel: Parallel
    ) -> "Distiller":
        """Makes a distiller of models that are already put together, as experiments do.

        Args:
          group: the models that are trained together, and how.
          teachers: name -> frozen teacher, its variables on the devices.
          parallel: how the step is spread over devices.
        """
        # An experiment has checked and built everything already; nothing of `__init__` applies.
        made = cls.__new__(cls)
        made._group, made.teachers, made._parallel = group, dict(teachers), parallel
        made.task = group.task
        made._accumulate, made._compiled = 1, None
        return made

    @property
    def parallel(self) -> Parallel:
        """Returns how the step is spread over devices."""
        if self._parallel is None:
            # Made late, so that a script may still choose its devices after it has made a
            # distiller.
            self._parallel = make_parallel(backend="jit", data=-1, fsdp=1, tensor=1)
        return self._parallel

    @property
    def group(self) -> PeerGroup:
        """Returns the models that are trained, and how; known once `init` has seen a batch."""
        if self._group is None:
            raise ValueError("call init(seed, example_batch) before the first step")
        return self._group

    def init(self, seed: int, example_batch: Any) -> TrainState:
        """Builds the state before the first step, and checks every loss against the models' shapes.

        The seed derives everything that is drawn, as that of a config does. A given student starts
        from its own variables, any other from new ones.

        Args:
          seed: of initial values, dropout and whatever losses draw.
          example_batch: a batch like those of training; nothing of it is consumed.

        Returns:
          The state; `state.student.variables()` are the student's.

        Raises:
          ValueError: in one line, for a batch, a loss, a layer or a hyperparameter that doesn't
            fit.
        """
        batch = self.as_batch(example_batch)
        self.parallel.check_batch(len(batch.valid), self._accumulate)
        # The same streams as in a config, so that both ways start from the same weights.
        variables = self.network.init(fold_name(stream(seed, "init"), STUDENT), batch)
        # Teachers are placed once; the step gets them as data and compiles none of their weights
        # in.
        held = {
            name: Teacher(model.frozen(initial), model)
            for name, (model, initial) in self._given_teachers.items()
        }
        self.teachers = self.parallel.place(held)
        spec = self._term_spec(variables, batch)
        objective = make_objective(self._losses, spec)
        # A mean over no label at all would be 0 in silence.
        labelled = [name for name, term in objective.terms.items() if term.labelled]
        if labelled and not np.any(batch.label_valid):
            raise ValueError(f"losses {labelled[0]!r} learns from labels, and the batch has none")
        # A memory has one row for each training example, whose number only the user knows.
        remembered = jax.eval_shape(objective.init, jax.random.key(0))[1]
        if remembered and self._train_labels is None and len(spec.labels) == 0:
            names = ", ".join(remembered)
            raise ValueError(f"losses {names} remembers every training example: give train_labels")
        training = ModelTraining(self.network, objective, self._optimizer)
        drawn = derived_seed(seed, "train", STUDENT)
        self._group = PeerGroup({STUDENT: training}, drawn, task=self.task)
        key = fold_name(stream(seed, "objective"), STUDENT)
        state = TrainState(jnp.zeros((), "int32"), {STUDENT: training.init(variables, key)})
        self._compiled = None
        return self.parallel.place(state)

    def _term_spec(self, variables: PyTree, batch: Batch) -> TermSpec:
        """Says what the losses may read: the outputs of student and teachers, as shapes."""
        output = jax.eval_shape(self.network, variables, batch)
        taught = {name: jax.eval_shape(each, batch) for name, each in self.teachers.items()}
        classes = output.logits.shape[-1]
        # With tokens, terms know which features have a vector for each of them.
        tokens = batch.views[VIEW].get("input_ids") if isinstance(batch.views[VIEW], dict) else None
        return TermSpec(
            VIEW,
            output,
            taught,
            None if tokens is None else tokens.shape[1],
            {name: self._given_teachers[name][0].view for name in taught},
            np.zeros(0, np.int32) if self._train_labels is None else np.asarray(self._train_labels),
            classes,
            jax.eval_shape(lambda: jax.tree.map(jnp.asarray, dict(batch.views))),
            task=self.task,
        )

    def step(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        """Updates the student on one batch.

        Args:
          state: of `init` or of an earlier step; it is donated, so use the returned one.
          batch: `(inputs, labels)`, or a mapping; every leaf has the batch as its leading axis.

        Returns:
          The new state, and scalars on the device: the mean of each loss by its name, "loss", the
          task's, such as "accuracy", "gradient_norm", and "parameters_finite", False once a
          parameter is NaN or infinite.
        """
        parts = self._microbatches(self.as_batch(batch))
        state, metrics = self.advance(state, parts)
        # Sums merge exactly, but users want means.
        named = metrics[STUDENT]
        return state, {k: v.value() if isinstance(v, Mean) else v for k, v in named.items()}

    def advance(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Takes one compiled step of the whole group.

        Args:
          state: the group's; it is donated.
          batch: in the memory of the host, leaves `[accumulate, rows, ...]`.

        Returns:
          The new state, and every model's metrics as sums that merge exactly.
        """
        if self._compiled is None:
            # Compiled at the first batch, whose shapes are known only then.
            step = partial(train_step, group=self.group)
            self._compiled = self.parallel.compile_train_step(step, state)
        placed = self.parallel.place_batch(batch, axis=1)
        return wait_where_cores_are_few(self._compiled(state, self.teachers, placed))

    def evaluate(self, state: TrainState, batches: Iterable[Any]) -> dict[str, Any]:
        """Computes the student's metrics on labelled batches, beside what its teachers say.

        Args:
          state: of training.
          batches: like those of training, in any number of rows.

        Returns:
          The task's metrics and "loss", for a classifier "accuracy", "macro_f1", "mcc", ...; None
          for one that is undefined. How far it agrees with its teachers, "agreement" and
          "teacher_kl", by teacher's name.
        """
        step = partial(eval_step, forward=self.network, task=self.task)
        compiled = self.parallel.evaluate(step)
        # Any number of rows will do: what is added to fill the devices up does not count.
        rows = (self._padded(self.as_batch(batch)) for batch in batches)
        return evaluate(compiled, state.student.variables(), self.teachers, rows, self.task)

    def variables(self, state: TrainState) -> Any:
        """Returns the student's variables as its own module takes them.

        A Linen module applies them; `nnx.update` puts them into an NNX module.
        """
        held = state.student.variables()
        # Streams of random numbers are no state of training, so they are left out.
        if isinstance(self.network, NnxModel):
            return nnx.state(self.network.merged(held), nnx.Not(nnx.RngState))
        return self.network.unpacked(held)

    def as_batch(self, batch: Any) -> Batch:
        """Reads a user's batch.

        Raises:
          ValueError: for a batch without inputs, or parts that differ in their number of rows.
        """
        if isinstance(batch, Batch):
            return batch
        inputs = self._part(batch, "inputs", 0, required=True)
        labels = self._part(batch, "labels", 1)
        views = {VIEW: inputs}
        if self._where["teacher_inputs"] is not None:
            views[TEACHER_VIEW] = self._part(batch, "teacher_inputs", 2, required=True)
        # Inputs and labels of unequal length would be paired wrongly, or fail deep inside jax.
        leaves = jax.tree.leaves((views, labels))
        rows = {int(np.shape(leaf)[0]) if np.ndim(leaf) else -1 for leaf in leaves}
        if len(rows) != 1 or rows == {-1}:
            shapes = ", ".join(str(np.shape(leaf)) for leaf in leaves)
            raise ValueError(f"all parts of a batch must have the same rows, got shapes {shapes}")
        count = rows.pop()
        everyone = np.ones(count, bool)
        index = batch.get("index") if isinstance(batch, Mapping) else None
        if index is None and self._train_labels is not None:
            raise ValueError(
                "losses that remember examples need each example's position as 'index'"
            )
        # Without labels the batch is still good for every term that only looks at the teacher.
        if labels is None:
            labels, valid = np.zeros(count, np.int32), np.zeros(count, bool)
        else:
            labels = np.asarray(labels)
            # A class below 0 says that the label is missing; a distribution is never missing.
            valid = everyone if labels.ndim > 1 else labels >= 0
        positions = (
            np.arange(count, dtype=np.int32) if index is None else np.asarray(index, np.int32)
        )
        return Batch(positions, views, labels, valid, everyone)

    def _part(self, batch: Any, name: str, position: int, *, required: bool = False) -> Any:
        where = self._where[name]
        # A function is asked first, so that it may read batches of any kind.
        if callable(where):
            return where(batch)
        if isinstance(batch, Mapping):
            key = name if where is None else where
            if key in batch:
                return batch[key]
            listed = ", ".join(map(str, batch))
            if required or where is not None:
                raise ValueError(f"the batch has no {key!r}; it has {listed} ({name}=... names it)")
            return None
        if isinstance(batch, (tuple, list)):
            at = position if where is None else where
            if isinstance(at, int) and at < len(batch):
                return batch[at]
            if required or where is not None:
                raise ValueError(f"the batch has {len(batch)} parts and no {name} at {at!r}")
            return None
        if required:
            return batch  # Inputs alone.
        return None

    def _microbatches(self, batch: Batch) -> Batch:
        """Reshapes leaves [B, ...] to [accumulate, B / accumulate, ...]."""
        self.parallel.check_batch(len(batch.valid), self._accumulate)
        parts = self._accumulate

        # Microbatches are slices in order, so that accumulation sees the rows that one batch would.
        def cut(leaf: Any) -> Any:
            return np.reshape(leaf, (parts, np.shape(leaf)[0] // parts, *np.shape(leaf)[1:]))

        return jax.tree.map(cut, batch)

    def _padded(self, batch: Batch) -> Batch:
        """Appends rows that don't count, so that all devices have equally many."""
        missing = -len(batch.valid) % self.parallel.devices
        if not missing:
            return batch
        # Copies of the last row are finite and of the right kind, whatever the leaves hold.
        padded = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], missing, 0)]), batch)
        return padded.replace(valid=np.append(batch.valid, np.zeros(missing, bool)))


def distill(
    student: Any,
    teacher: Any,
    batches: Iterable[Any],
    *,
    losses: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    steps: int | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[Any, dict[str, float]]:
    """Distils a teacher into a student, and returns what the student has learned.

    Args:
      student: as `Distiller` takes it.
      teacher: likewise.
      batches: training batches; a sequence or another re-iterable is gone through again until
        `steps` are taken.
      losses: as `Distiller` takes them.
      optimizer: any optax transformation.
      steps: updates to take; None: as many as there are batches.
      seed: of everything that is drawn.
      **options: further ones of `Distiller`.

    Returns:
      The student's variables, as its own module takes them, and the metrics of the last step.

    Raises:
      ValueError: as `Distiller` and its `init`; or when the batches end before `steps`.
      FloatingPointError: when the loss is no longer a finite number.
    """
    # The first batch gives the shapes and is trained on as well.
    distiller = Distiller(student, teacher, losses=losses, optimizer=optimizer, **options)
    state, metrics = None, {}
    for number, batch in enumerate(_first(batches, steps), start=1):
        if state is None:
            state = distiller.init(seed, batch)
        state, metrics = distiller.step(state, batch)
        # Looking at a number waits for the device, so it is done now and then.
        if number % 100 == 0 or number == steps:
            _require_finite(metrics, number)
    if state is None:
        raise ValueError("there are no batches to learn from")
    _require_finite(metrics, int(state.step))
    return distiller.variables(state), {name: float(value) for name, value in metrics.items()}


def _first(batches: Iterable[Any], steps: int | None) -> Iterable[Any]:
    """Yields `steps` batches, going through them again where that is possible; all of them for
    None.
    """
    if steps is None:
        yield from batches
        return
    taken = 0
    while taken < steps:
        before = taken
        for batch in batches:
            if taken == steps:
                return
            yield batch
            taken += 1
        # An iterator that is used up gives nothing the second time; waiting for more would never
        # end.
        if taken == before:
            raise ValueError(
                f"the batches ended after {taken} of {steps} steps, and can't be gone through again"
            )


def _require_finite(metrics: Mapping[str, Any], step: int) -> None:
    for name, value in metrics.items():
        if not np.isfinite(np.asarray(value)):
            raise FloatingPointError(
                f"{name} is {float(value)} at step {step}; a lower learning rate or weight may help"
            )


def as_student(student: Any) -> Any:
    """Returns a user's student as a model that can be trained.

    Raises:
      ValueError: for something else than a module, or a module with variables.
    """
    if isinstance(student, nnx.Module):
        return NnxModel(student)
    if isinstance(student, nn.Module):
        return LinenModel(student)
    if isinstance(student, tuple) and len(student) == 2 and isinstance(student[0], nn.Module):
        return LinenModel(student[0], initial=student[1])
    raise ValueError(
        "student must be a Linen module, (Linen module, variables) or an NNX module, got"
        f" {type(student).__name__}"
    )


def as_teachers(
    teacher: Any, view: str = VIEW, task: Task = CLASSIFICATION
) -> dict[str, tuple[Any, PyTree]]:
    """Returns a user's teachers: name -> the model and its variables.

    Args:
      teacher: as `Distiller` takes it.
      view: name of what they read of a batch.
      task: what they predict, by which several in a list are averaged.

    Raises:
      ValueError: for something else than a teacher, naming what there is.
    """
    if teacher is None:
        return {}
    if isinstance(teacher, Mapping):
        return {name: _as_teacher(each, view, task) for name, each in teacher.items()}
    return {TEACHER: _as_teacher(teacher, view, task)}


def _as_teacher(teacher: Any, view: str, task: Task) -> tuple[Any, PyTree]:
    if isinstance(teacher, nnx.Module):
        model = NnxModel(teacher, view)
        return model, model.init(jax.random.key(0))
    if isinstance(teacher, tuple) and len(teacher) == 2 and isinstance(teacher[0], nn.Module):
        model = LinenModel(teacher[0], view)
        return model, model.stored(teacher[1])
    if isinstance(teacher, list) and teacher:
        members = {
            str(number): _as_teacher(each, view, task) for number, each in enumerate(teacher)
        }
        equal = (1 / len(members),) * len(members)
        models = {name: model for name, (model, _) in members.items()}
        # Numbers and vectors have no probabilities.
        combine = "mean_probabilities" if task.kind in ("classes", "sets") else "mean_logits"
        ones = (1.0,) * len(members)
        ensemble = Ensemble(models, combine, equal, ones, view, task.kind)
        return ensemble, {name: variables for name, (_, variables) in members.items()}
    if isinstance(teacher, (str, Path)):
        module, variables = weights.load(weights.path_of(str(teacher)), None)
        model = LinenModel(module, view)
        return model, model.stored(variables)
    if isinstance(teacher, nn.Module):
        raise ValueError("a Linen teacher needs its variables: teacher=(module, variables)")
    if callable(teacher):
        return FunctionModel(teacher, view), {}
    raise ValueError(
        "teacher must be (Linen module, variables), an NNX module, a function, a folder, or a list"
        f" or mapping of these, got {type(teacher).__name__}"
    )
