"""Small experiments of every task, on tables whose labels follow from their words."""

import csv

import numpy as np
from safetensors.numpy import load_file

import kd_jax as kd
from kd_jax.config.load import resolve
from kd_jax.experiments.run import run_experiment

ENCODER = dict(
    name="encoder",
    max_positions=16,
    type_vocabulary=2,
    pooling="mean",
    width=8,
    heads=2,
    dropout=0.0,
)
WORDS = ("red", "green", "blue")


def table(folder, task):
    """Sentences of three words; their sets, or their numbers, are a function of the words."""
    if task in ("tagging", "embedding", "masked_language_model"):
        return sentences(folder) if task == "tagging" else pairs(folder)
    rng = np.random.default_rng(0)
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", *(WORDS if task == "multilabel" else ("score",))])
        for number in range(160):
            there = rng.random(3) < 0.5
            fill = " ".join(rng.choice([*"abcdefghijklmnopqrstuvwxyz"], 6))
            text = " ".join([*np.array(WORDS)[there], fill])
            score = 100 + 10 * (there @ [1, 2, 4])
            rows.writerow([number, text, *(there.astype(int) if task == "multilabel" else [score])])
    return path


def sentences(folder):
    """Sentences in which the colours are entities, two in a row one of two words."""
    rng = np.random.default_rng(0)
    path = folder / "sentences.conll"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(160):
            before = "O"
            for word in rng.choice([*WORDS, *"abcdefgh"], rng.integers(2, 20)):
                tag = "O" if word not in WORDS else "B-colour" if before == "O" else "I-colour"
                file.write(f"{word}\t{tag}\n")
                before = tag
            file.write("\n")
    return path


def pairs(folder):
    """Pairs of short texts; the score is how many words both have."""
    rng = np.random.default_rng(0)
    path = folder / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["first", "second", "score"])
        for _ in range(80):
            both = [rng.choice([*WORDS, *"abcdefghijk"], 4, replace=False) for _ in range(2)]
            rows.writerow([*map(" ".join, both), len({*both[0]} & {*both[1]})])
    return path


LABELS = {
    "embedding": "score",
    "masked_language_model": None,
    "multilabel": WORDS,
    "regression": "score",
    "tagging": "tags",
}


INPUTS = {
    "embedding": ("first", "second"),
    "masked_language_model": "first",
    "tagging": "words",
}


def config_of(path, task, **changes):
    inputs, label = INPUTS.get(task, "text"), LABELS[task]
    config = kd.experiment(
        "tasks",
        task=task,
        data=dict(name=str(path), inputs=inputs, label=label, cleaning=dict(mode="off")),
        view=dict(tokenizer="trained", vocabulary_size=120, max_length=16),
        training=dict(
            epochs=1.0,
            batch_size=16,
            optimizer=dict(learning_rate=3e-3),
            schedule=dict(warmup_steps=1),
        ),
        parallel=dict(data=1),
        checkpoint=dict(use="latest"),
        teacher=dict(model=dict(**ENCODER, layers=1, intermediate=16)),
        student=dict(model=dict(**ENCODER, layers=1, intermediate=8)),
    )
    if task == "embedding":
        # Nothing learns from labels: a teacher at random is as good as any.
        for model in ("teacher", "baseline"):
            config.models[model].allow_weak = True
    config.update_from_flattened_dict(changes)
    return resolve(config)


def require_equal_on_all_devices(folder, make_config):
    """Runs on one device, eight under jit and eight under pmap, and compares students.

    `make_config`: takes what differs between them. The runs' folders are jit1, jit8 and pmap8.
    """
    found = {}
    for backend, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
        changes = {"parallel.backend": backend, "parallel.data": devices, "dtype": "float64"}
        run = folder / f"{backend}{devices}"
        results = run_experiment(make_config(changes), run)
        weights = load_file(run / "student" / "model.safetensors")
        found[backend, devices] = results["models"]["student"]["metrics"], weights
    metrics, weights = found["jit", 1]
    for others, theirs in found.values():
        for name, leaf in weights.items():
            np.testing.assert_allclose(theirs[name], leaf, rtol=1e-9, atol=1e-9, err_msg=name)
        for name, value in metrics.items():
            assert (value is None) == (others[name] is None)
            if value is not None:
                np.testing.assert_allclose(others[name], value, rtol=1e-9, err_msg=name)
