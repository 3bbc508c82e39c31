"""A finished run as its folder describes it: config, results, data, and its models ready to be
asked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kd_jax.config.load import with_tuples
from kd_jax.config.schema import Plan
from kd_jax.core.json_files import read_own
from kd_jax.data.run_datasets import Datasets
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.stored_teachers import open_stored
from kd_jax.experiments.train_models import obtain
from kd_jax.experiments.training_sets import reopen
from kd_jax.teachers.build_ensemble import assemble
from kd_jax.training import trained_model
from kd_jax.training.context import RunContext
from kd_jax.training.interruption import StopSignal
from kd_jax.training.sharding import make_parallel, set_precision
from kd_jax.training.trained_model import TrainedModel

START_AGAIN = "start the run again with its config, and it is made again where it can be"

ONE_DEVICE = {"backend": "jit", "data": 1, "fsdp": 1, "tensor": 1}


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      path: its folder.
      plan: its config, checked.
      results: its results.json.
      context: its data, and the devices at hand.
    """

    path: Path
    plan: Plan
    results: Mapping[str, Any]
    context: RunContext

    @property
    def folder(self) -> Path:
        """Returns where the files of the explanation are written."""
        return self.path / "explain"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the K classes."""
        return self.context.datasets.class_names

    def choose(self, name: str | None) -> str:
        """Returns the model of that name; for None the compared student.

        Raises:
          ValueError: naming the models there are.
        """
        chosen = name or self.results["compare"]["student"]
        if chosen not in self.results["order"]:
            raise ValueError(
                f"the run in {self.path} has no model {chosen!r}; it has"
                f" {', '.join(self.results['order'])}"
            )
        return chosen

    def models(self, names: Iterable[str], *, teaching: bool = False) -> dict[str, TrainedModel]:
        """Loads models of the run by name, and those that an ensemble among them is made of.

        Args:
          names: the models'.
          teaching: whether they shall only teach, for which outputs in a file will do.

        Raises:
          ValueError: if one is damaged, or only outputs are known of it.
        """
        wanted = set(names)
        # From last to first: an ensemble stands behind its members, which may be ensembles.
        for plan in reversed(self.plan.models):
            wanted |= set(plan.members) if plan.name in wanted else set()
        found: dict[str, TrainedModel] = {}
        if files := [
            plan.name for plan in self.plan.models if plan.outputs and plan.name in wanted
        ]:
            if not teaching:
                raise ValueError(
                    f"of {files[0]!r} only outputs on the data are known, not what they rest on;"
                    f" --by=terms and --by=sources explain what a student learned from them"
                )
            found |= open_stored(self.plan, self.context)
        # In the order of training, so that members are there before their ensemble.
        for plan in self.plan.models:
            if plan.name in wanted and plan.members:
                # What an ensemble notes of itself goes beside the explanation: the run stays as it
                # is.
                elsewhere = replace(self.context, workdir=self.folder)
                found[plan.name] = assemble(
                    plan, {member: found[member] for member in plan.members}, elsewhere
                )
            elif plan.name in wanted and plan.name not in found:
                # Looked at first, because a damaged model would silently be trained anew.
                if trained_model.load(self.path / plan.name) is None:
                    raise ValueError(
                        f"{plan.name!r} in {self.path} is damaged; start the run again and it is"
                        f" remade"
                    )
                alone = replace(
                    plan, condition=None
                )  # What it would be given, it is explained without.
                found |= obtain([alone], {}, self.context)
        return found


def open_run(workdir: Path, parallel: Mapping[str, Any] | None = None) -> Run:
    """Opens a finished run.

    Args:
      workdir: its folder.
      parallel: the devices to use, like the config's section; None: as the run did.

    Raises:
      ValueError: if the folder is no run's, the run isn't finished, or its data has changed.
    """
    if not (workdir / "config.json").is_file():
        raise ValueError(f"{workdir} is no run's folder: it has no config.json")
    if not (workdir / "results.json").is_file():
        raise ValueError(f"the run in {workdir} is not finished; start it again and it goes on")
    workdir = workdir.resolve()
    # JSON knows only lists, and some rules and comparisons of configs expect tuples.
    plan = make_plan(with_tuples(read_own(workdir / "config.json", START_AGAIN)))
    if not plan.task.one_class:
        raise ValueError(
            f"what a model for task {plan.task.name!r} rests on isn't explained yet; explanations"
            f" are of one class an example"
        )
    # Before the first array: later the setting would not change what is already float32.
    set_precision([model.dtype for model in plan.models])
    config = plan.config
    # Further datasets aren't explained, so they need not be there any more.
    datasets = Datasets(config["data"], {}, plan.task, taught=plan.taught)
    if read_own(workdir / "data.json", START_AGAIN, str) != datasets.fingerprint():
        raise ValueError(f"the data changed since the run in {workdir}")
    # Models may have learned from sets, which a training of a subset reads again.
    reopen(plan, datasets, workdir)
    context = RunContext(
        workdir,
        datasets,
        make_parallel(**(parallel or config["parallel"])),
        config["seed"],
        config["checkpoint"],
        config["logging"],
        StopSignal(),
    )
    return Run(workdir, plan, read_own(workdir / "results.json", START_AGAIN), context)
