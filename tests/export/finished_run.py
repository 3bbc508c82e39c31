"""A run's folder with one finished student of random weights, as a training run leaves it."""

import json

import jax
import numpy as np

from kd_jax.core.pytree import fingerprint
from kd_jax.data.views.text import load_tokenizer
from kd_jax.models import registry
from kd_jax.training import trained_model
from kd_jax.training.trained_model import Contents

TEXTS = [
    "a fine film",
    "a dull and long film",
    "fine acting , dull story",
    "one long bore",
    "the story of a film",
] * 4
ENCODER = {
    "name": "encoder",
    "width": 12,
    "layers": 2,
    "heads": 3,
    "intermediate": 20,
    "max_positions": 24,
}
ENCODER |= {"type_vocabulary": 2, "dropout": 0.1, "pooling": "cls", "vocabulary_size": 19}
BAG = {
    "name": "bag_of_embeddings",
    "vocabulary_size": 19,
    "width": 6,
    "hidden": (5,),
    "dropout": 0.1,
}
CNN = {"name": "cnn", "widths": (4, 6), "batch_norm": True}
VIT = {
    "name": "vit",
    "image_size": 8,
    "patch": 4,
    "width": 6,
    "layers": 2,
    "heads": 2,
    "intermediate": 10,
}
VIT |= {"dropout": 0.1, "distillation": False}
RESNET = {
    "name": "resnet",
    "stem": 4,
    "blocks": (1, 1, 1, 1),
    "widths": (3, 4, 5, 6),
    "bottleneck": True,
}
TEXT_VIEW = {"tokenizer": "trained", "vocabulary_size": 19, "max_length": 16}


def is_text(spec):
    return "vocabulary_size" in spec


def make_run(folder, spec, *, side=8, channels=3, pairs=False, finished=True, view=None):
    """Writes the folder and returns it."""
    module = registry.build(spec | {"num_classes": 3})
    if is_text(spec):
        names = ("input_ids", "attention_mask", *(("token_type_ids",) if pairs else ()))
        inputs = {name: [16] for name in names}
        view = dict(view or TEXT_VIEW)
        example = (np.zeros((1, 16), np.int32), np.ones((1, 16), bool))
    else:
        inputs = {"images": [side, side, channels]}
        view = view or {"size": None, "mean": [0.5], "std": [0.25], "channels": channels}
        example = (np.zeros((1, side, side, channels), np.float32),)
    variables = jax.jit(module.init)(jax.random.key(0), *example)
    rng = np.random.default_rng(0)
    # Nothing is 0 or 1 any more, so that nothing can be forgotten unnoticed.
    variables = jax.tree.map(lambda x: np.float32(x + rng.normal(0, 0.2, x.shape)), variables)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    description = {
        "spec": spec,
        "architecture": registry.describe(module),
        "view": view,
        "inputs": inputs,
        "dtype": "float32",
        "columns": ["text", "other"] if pairs else "text",
        "class_names": ["bad", "fair", "good"],
        "fingerprint": fingerprint(variables),
        "step": 7,
        "train_seconds": 1.0,
        "parameters": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = None
    if is_text(spec):
        tokenizer = load_tokenizer("trained", texts=TEXTS, vocabulary_size=19)
        tokenizer = tokenizer.to_str(pretty=True)
    trained_model.save(folder / "student", Contents(variables, description, {}), tokenizer)
    (folder / "config.json").write_text(
        json.dumps({"compare": {"student": "student"}, "models": {"student": {}}})
    )
    if finished:
        (folder / "results.json").write_text(json.dumps(results(folder)))
    return folder


def results(folder):
    entry = {"teachers": ["teacher"], "accuracy": 0.8125, "loss": 0.5, "parameters": 1234}
    return {
        "experiment": folder.name,
        "seed": 3,
        "order": ["student"],
        "models": {"student": entry},
        "evaluations": {"elsewhere": {"student": {"accuracy": 0.75}}},
        "environment": {"commit": "c0ffee", "jax": jax.__version__, "backend": "cpu"},
    }
