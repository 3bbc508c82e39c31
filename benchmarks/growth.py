r"""Measures how cost grows: with rows, devices, classes and the length of texts.

  uv run benchmarks/growth.py [--only=rows|devices|classes|sequence] [--output=FILE]

Each point is a process of its own.

rows      A whole run of a bag of embeddings that learns from stored logits, on a table of 10,000
          rows, 4 times and 16 times as many: seconds, and the most memory that the process held.
devices   What a step takes of each of 1 to 8 simulated devices, as `kd_jax.experiments.fit` tells:
          BERT-base teaches its half, batch 32, 128 tokens, a vocabulary of 30,528, which 8 divides.
classes   A step of a small encoder with the stored logits of 10, 1,000 and 50,000 classes.
sequence  A step of a small encoder on texts of 64, 256 and 1,024 tokens; and of 1,024 and 4,096
          with `query_chunk_size` 128.

Texts are random words, so no dataset is needed. Seconds of a step are the median of its samples
that no other process disturbed (see `pairs.py`); a "busy" point had none, and shows all of them.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pairs import QUIET, timed
from rich.console import Console
from rich.table import Table

Point = dict[str, Any]

ROWS, WORDS, TOPICS = 10_000, 12, 4
"""Rows of the smallest table, words of a row, and its classes."""

VOCABULARY, TOKENS, BATCH = 30_528, 128, 32
"""Of the devices' experiment."""

BERT = dict(
    name="encoder",
    width=768,
    layers=12,
    heads=12,
    intermediate=3_072,
    max_positions=512,
    type_vocabulary=2,
    dropout=0.1,
    pooling="mean",
)
SMALL = dict(
    name="encoder",
    vocabulary_size=8_000,
    width=128,
    layers=2,
    heads=2,
    intermediate=512,
    max_positions=4_096,
    type_vocabulary=2,
    dropout=0.1,
    pooling="mean",
)

POINTS: dict[str, tuple[Any, ...]] = {
    "rows": (1, 4, 16),
    "devices": ((1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4), (2, 1, 1), (4, 1, 1)),
    "classes": (10, 1_000, 50_000),
    "sequence": ((64, 0), (256, 0), (1_024, 0), (1_024, 128), (4_096, 128)),
}
"""Part -> its points: how many times as many rows, meshes of (data, fsdp, tensor), classes, tokens
and of how many queries the scores are in memory at once, 0: of all."""

STEPS = 9
"""Timed steps of a point."""


# Data


def write_table(folder: Path, rows: int, words: int, lexicon: int) -> Path:
    """Writes a table of random texts, their classes and ids."""
    rng = np.random.default_rng(0)
    texts, labels = rng.integers(0, lexicon, (rows, words)), rng.integers(0, TOPICS, rows)
    path = folder / "table.csv"
    with path.open("w") as file:
        file.write("id,text,label\n")
        for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
            file.write(f"r{number},{' '.join(f'w{word}' for word in text)},topic{label}\n")
    return path


def write_outputs(folder: Path, rows: int) -> Path:
    """Writes a teacher's logits of all rows."""
    path = folder / "outputs.npz"
    logits = np.random.default_rng(1).normal(size=(rows, TOPICS)).astype(np.float32)
    np.savez(path, id=np.array([f"r{n}" for n in range(rows)]), logits=logits)
    return path


def write_tokenizer(folder: Path) -> Path:
    """Writes a tokenizer of whole words, as many as `VOCABULARY` with the special ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from kd_jax.data.views.text import SPECIAL_TOKENS

    words = [*SPECIAL_TOKENS, *(f"w{n}" for n in range(VOCABULARY - len(SPECIAL_TOKENS)))]
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, numbers[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_teacher(folder: Path) -> Path:
    """Writes a BERT-base of zeros as an export: only its shapes matter."""
    import jax

    from kd_jax.core import seal
    from kd_jax.core.json_files import write_json
    from kd_jax.core.pytree import fingerprint
    from kd_jax.models import registry
    from kd_jax.training.trained_model import write_variables

    module = registry.build(BERT | dict(num_classes=TOPICS, vocabulary_size=VOCABULARY))
    ids = np.zeros((1, TOKENS), np.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), ids, ids)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    write_variables(folder / "model.safetensors", variables)
    described = {
        "architecture": registry.describe(module),
        "fingerprint": fingerprint(variables),
        "class_names": [f"topic{n}" for n in range(TOPICS)],
    }
    write_json(folder / "architecture.json", seal.seal(described))
    return folder


def make_config(table: Path, **sections: Any) -> dict[str, Any]:
    """Returns an experiment of a student alone, its own baseline."""
    from kd_jax.config import experiment, soft_targets

    sections["student"] |= dict(objective=soft_targets(temperature=2.0))
    made = experiment(
        "growth",
        data=dict(name=str(table), inputs="text", label="label", id="id"),
        compare=dict(baseline="student"),
        **sections,
    ).to_dict()
    del made["models"]["baseline"]
    return made


# Points, each in a process of its own


def measure_rows(times: int) -> Point:
    """Runs an experiment of so many times `ROWS` rows."""
    from kd_jax.training import host_memory, xla_flags

    host_memory.keep()
    xla_flags.prepare(text=True)
    import kd_jax

    count = times * ROWS
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        config = make_config(
            write_table(scratch, count, WORDS, 2_000),
            view=dict(tokenizer="trained", vocabulary_size=2_000, max_length=16),
            training=dict(batch_size=128, epochs=1.0),
            teacher=dict(
                model=dict(outputs=str(write_outputs(scratch, count))),
                # Of random logits.
                allow_weak=True,
            ),
            student=dict(
                model=dict(name="bag_of_embeddings", width=64, hidden=(), dropout=0.0),
                cached=("teacher",),
            ),
            # Once, so that evaluations grow with the rows as all else does.
            checkpoint=dict(every_steps=10**6),
        )
        results: dict[str, Any] = {}
        seconds, quiet = timed(lambda: results.update(kd_jax.run(config, scratch / "run")))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trained = results["models"]["student"]["train_seconds"]
    return dict(rows=count, seconds=seconds, trained=trained, peak_bytes=peak, quiet=quiet)


def measure_devices(mesh: tuple[int, int, int], teacher: str) -> Point:
    """Asks what a step of BERT-base and its half takes on a mesh of simulated devices."""
    # XLA's CPU collectives starve unless its thread pool is larger than the number of devices.
    os.environ.setdefault("NPROC", "32")
    os.environ["JAX_PLATFORMS"] = "cpu"
    from kd_jax.training import xla_flags

    xla_flags.prepare(text=True)
    xla_flags.prepare_simulated()
    import jax

    jax.config.update("jax_num_cpu_devices", int(np.prod(mesh)))
    from kd_jax.config.load import resolve
    from kd_jax.experiments.fit import fit

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        config = make_config(
            # Longer than what is read, so that each batch is of `TOKENS`.
            write_table(scratch, 400, TOKENS + 20, VOCABULARY - 5),
            view=dict(tokenizer=str(write_tokenizer(scratch / "words")), max_length=TOKENS),
            training=dict(batch_size=BATCH, epochs=1.0),
            teacher=dict(model=dict(pretrained=teacher)),
            student=dict(model=BERT | dict(layers=6)),
            parallel=dict(data=mesh[0], fsdp=mesh[1], tensor=mesh[2]),
        )
        (step,) = fit(resolve(config))["steps"]
    return dict(mesh=mesh) | {key: step[key] for key in step if key != "models"}


def measure_step(classes: int, tokens: int, rows: int, chunk: int = 0) -> Point:
    """Times a step of a small encoder that learns from stored logits, and asks for its memory."""
    from kd_jax.training import host_memory, xla_flags

    host_memory.keep()
    xla_flags.prepare(text=True)
    import jax

    step, state, teachers, batch = make_step(classes, tokens, rows, chunk)
    compiled: Any = jax.jit(step, donate_argnums=0).lower(state, teachers, batch).compile()
    placed = jax.device_put(batch)

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, teachers, placed)
        jax.block_until_ready((state, metrics))

    # The first one also touches all of its memory for the first time.
    run()
    samples = [timed(run) for _ in range(STEPS)]
    quiet = [seconds for seconds, alone in samples if alone]
    memory = compiled.memory_analysis()
    return dict(
        classes=classes,
        tokens=tokens,
        chunk=chunk,
        batch=rows,
        seconds=float(np.median(quiet or [seconds for seconds, _ in samples])),
        quiet=bool(quiet),
        dropped=len(samples) - len(quiet),
        temporary_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        flops=(compiled.cost_analysis() or {}).get("flops"),
    )


def make_step(
    classes: int, tokens: int, rows: int, chunk: int
) -> tuple[Callable[..., Any], Any, Any, Any]:
    """Builds a training step, its state, its teacher of stored logits, and a batch."""
    import functools

    import jax
    import jax.numpy as jnp

    from kd_jax.config import soft_targets
    from kd_jax.core.types import LOGITS, Batch, Teacher
    from kd_jax.models import registry
    from kd_jax.models.network import Network
    from kd_jax.objective.objective import make_objective
    from kd_jax.objective.terms import TermSpec
    from kd_jax.teachers.outputs import StoredTeacher, view_of
    from kd_jax.training.optimizers import make_optimizer
    from kd_jax.training.state import TrainState
    from kd_jax.training.step import ModelTraining, PeerGroup, train_step

    rng, everyone = np.random.default_rng(0), np.ones((1, rows), bool)
    views: Any = {
        "text": {
            "input_ids": rng.integers(5, 8_000, (1, rows, tokens)).astype(np.int32),
            "attention_mask": np.ones((1, rows, tokens), bool),
        },
        view_of("t"): {LOGITS: rng.normal(size=(1, rows, classes)).astype(np.float32)},
    }
    labels = rng.integers(0, classes, (1, rows)).astype(np.int32)
    index = np.arange(rows, dtype=np.int32)[None]
    batch = Batch(index, views, labels, everyone, everyone)
    one = jax.tree.map(lambda leaf: leaf[0], batch)
    small = SMALL | {"num_classes": classes, "query_chunk_size": chunk}
    network = Network(registry.build(small), "text", jnp.float32)
    variables, teachers = (
        network.init(jax.random.key(0), one),
        {"t": Teacher({}, StoredTeacher(view_of("t")))},
    )
    spec = TermSpec(
        "text",
        jax.eval_shape(network, variables, one),
        {"t": jax.eval_shape(teachers["t"], one)},
        tokens,
        {"t": "text"},
        np.zeros(1, np.int32),
        classes,
    )
    optimizer, _ = make_optimizer(
        dict(name="adamw", learning_rate=1e-3, weight_decay=0.01, clip_norm=1.0),
        dict(name="constant", warmup_steps=0),
        1000,
    )
    training = ModelTraining(
        network, make_objective(soft_targets(temperature=2.0), spec), optimizer
    )
    state = TrainState(jnp.zeros((), jnp.int32), {"s": training.init(variables, jax.random.key(1))})
    step = functools.partial(train_step, group=PeerGroup({"s": training}, 0))
    return step, state, teachers, batch


def measure(part: str, point: Any, teacher: str) -> Point:
    """Measures one point in this process."""
    if part == "rows":
        return measure_rows(point)
    if part == "devices":
        return measure_devices((point[0], point[1], point[2]), teacher)
    # A longer batch for classes: their cost is a row's, that of tokens a pair's.
    if part == "classes":
        return measure_step(point, 32, 64)
    return measure_step(10, point[0], 8, point[1])


# All points


def child(part: str, point: Any, teacher: str) -> Point:
    """Measures one point in a process of its own."""
    command = [sys.executable, __file__, "--child", part, json.dumps(point), teacher]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{part} {point} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f}"


def cells(part: str, found: Point) -> dict[str, str]:
    """Returns a point's row of the table: column -> text."""
    busy = "" if found.get("quiet", True) else " (busy)"
    if part == "rows":
        return {
            "rows": f"{found['rows']:,}",
            "seconds": f"{found['seconds']:.1f}{busy}",
            "of them trained": f"{found['trained']:.1f}",
            "peak MB": megabytes(found["peak_bytes"]),
        }
    if part == "devices":
        told = ", ".join(
            f"{each['count']} {kind} ({megabytes(each['bytes'])} MB)"
            for kind, each in found["collectives"].items()
        )
        parts = ("parameters", "optimizer", "teachers", "activations", "total")
        return {
            "data x fsdp x tensor": " x ".join(map(str, found["mesh"])),
            **{f"{name} MB": megabytes(found[name]) for name in parts},
            "GFLOP": f"{(found['flops'] or 0) / 1e9:,.1f}",
            "collectives": told or "none",
        }
    of = (
        {"classes": f"{found['classes']:,}"}
        if part == "classes"
        else {"tokens": f"{found['tokens']:,}", "in chunks of": str(found["chunk"] or "")}
    )
    return of | {
        "batch": str(found["batch"]),
        "ms a step": f"{1000 * found['seconds']:.1f}{busy}",
        "temporary MB": megabytes(found["temporary_bytes"]),
        "arguments MB": megabytes(found["argument_bytes"]),
        "GFLOP": f"{(found['flops'] or 0) / 1e9:,.2f}",
    }


def show(results: Mapping[str, list[Point]], console: Console) -> None:
    """Prints a table for each part."""
    for part, points in results.items():
        table = Table(title=f"how cost grows with {part}")
        rows = [cells(part, found) for found in points]
        for column in rows[0]:
            table.add_column(column, justify="left" if column == "collectives" else "right")
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
        if part == "rows" and len(points) > 1:
            # A start costs the same whatever the rows are, so what counts is what rows add.
            pairs = itertools.pairwise(points)
            added = [
                1000 * (b["seconds"] - a["seconds"]) / (b["rows"] - a["rows"]) for a, b in pairs
            ]
            told = ", ".join(f"{each:.3f}" for each in added)
            console.print(f"seconds for each 1,000 rows more, from point to point: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=tuple(POINTS), default=None)
    parser.add_argument("--points", default=None, help="of --only: a JSON list in place of all")
    parser.add_argument("--output", type=Path, default=None, help="a JSON file")
    options = parser.parse_args()
    results: dict[str, list[Point]] = {}
    with tempfile.TemporaryDirectory(prefix="kd_jax-growth-") as folder:
        teacher = Path(folder)
        for part in [options.only] if options.only else POINTS:
            if part == "devices":
                write_teacher(teacher)
            points = json.loads(options.points) if options.points else POINTS[part]
            results[part] = []
            for point in points:
                found = child(part, point, str(teacher))
                results[part].append(found)
                print(f"{part} {point}: {json.dumps(found)}", flush=True)
                if options.output:
                    # After each point, so that an interruption loses none that is finished.
                    told = {"quiet": QUIET, "cores": os.cpu_count(), **results}
                    options.output.write_text(json.dumps(told, indent=2) + "\n")
    show(results, Console())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2], json.loads(sys.argv[3]), sys.argv[4])))
    else:
        main()
