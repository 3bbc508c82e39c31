"""Stand-ins for the packages of tracking services, which note what they are asked to keep."""

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace


def install(monkeypatch, name, **contents):
    """Makes a module of that name importable."""
    module = ModuleType(name)
    module.__file__ = f"{name}.py"
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class WandbRun:
    def __init__(self, options):
        self.id, self.options = options["id"] or "first", options
        self.logged, self.metrics, self.settings, self.exit_code = [], [], {}, None
        self.config = SimpleNamespace(
            update=lambda values, allow_val_change: self.settings.update(values)
        )

    def define_metric(self, name, **options):
        self.metrics.append((name, options))

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


def install_wandb(monkeypatch):
    """Returns the list of runs that are begun."""
    runs = []

    def init(**options):
        runs.append(WandbRun(options))
        return runs[-1]

    install(monkeypatch, "wandb", init=init)
    return runs


class MlflowStore:
    """A client and its server."""

    def __init__(self):
        self.experiments, self.runs, self.logged, self.params = {}, {}, [], {}

    def get_experiment_by_name(self, name):
        found = self.experiments.get(name)
        return found and SimpleNamespace(experiment_id=found)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, str(len(self.experiments) + 1))

    def create_run(self, experiment, run_name, tags):
        identifier = f"run{len(self.runs)}"
        self.runs[identifier] = "RUNNING"
        return SimpleNamespace(info=SimpleNamespace(run_id=identifier))

    def update_run(self, run_id, status):
        if run_id not in self.runs:
            raise RuntimeError(f"Run '{run_id}' not found")
        self.runs[run_id] = status

    set_terminated = update_run

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        self.logged += [(run_id, *metric) for metric in metrics]
        self.params |= dict(params)


def install_mlflow(monkeypatch):
    """Returns the store that every client writes to."""
    store = MlflowStore()
    install(monkeypatch, "mlflow", MlflowClient=lambda: store)

    def metric(key, value, timestamp, step):
        assert timestamp > 1e12
        return key, value, step

    install(monkeypatch, "mlflow.entities", Metric=metric, Param=lambda key, value: (key, value))
    return store
