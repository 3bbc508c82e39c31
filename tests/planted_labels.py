"""Pictures of two shades of which some have the other's label, and experiments that doubt them."""

import json

import numpy as np
from paths import ROOT
from PIL import Image

from kd_jax.config.load import load_config, plain
from kd_jax.data.open import open_source

CONFIG = ROOT / "configs" / "digits_trusted.py"
SHADES = {"dark": 60, "light": 200}
TRAIN, TEST, WRONG = 40, 10, 3
"""Pictures of a class; the first three of "dark" in training show the other shade."""


def write_pictures(folder, flip):
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for shade, level in SHADES.items():
            home = folder / split / shade
            home.mkdir(parents=True)
            for number in range(count):
                wrong = flip and (split, shade) == ("train", "dark") and number < WRONG
                shown = SHADES["light"] if wrong else level
                picture = np.clip(shown + rng.normal(0, 25, (8, 8)), 0, 255).astype(np.uint8)
                Image.fromarray(picture).save(home / f"{number:02d}.png")


def picture_config(pictures, **options):
    """A judge, and models that learn from what it trusts; small ones."""
    config = load_config(f"{CONFIG}:smoke")
    config.data.update(
        name=str(pictures), train="train", selection="test[:50%]", evaluation="test[50%:]"
    )
    config.parallel.data, config.training.batch_size = 1, 16
    resolved = plain(config)
    for name in ("judge", "teacher"):
        resolved["models"][name]["model"] = {"name": "cnn", "widths": (16, 32), "batch_norm": False}
    for model in resolved["models"].values():
        model["training"]["epochs"] = 8.0
    for name in ("unsifted", "unsifted_baseline"):
        del resolved["models"][name]
    resolved["trusted_sets"]["trusted"] |= {"label_share": WRONG / (2 * TRAIN)} | options
    return resolved


def planted_rows(pictures):
    """The row numbers of the planted pictures, as the user counts them."""
    source = open_train(pictures)
    return {
        row
        for row, image, label in zip(source.rows, source.inputs, source.labels, strict=True)
        if label == source.class_names.index("dark") and image.mean() > 130
    }


def open_train(pictures):
    return open_source(
        str(pictures), "train", dir=None, inputs="image", label="label", max_rejected=0
    )


def quarantine(folder):
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def of_the_set(folder, reason):
    return {
        entry["row"]
        for entry in quarantine(folder)
        if entry.get("set") == "trusted" and reason in entry["reasons"]
    }


def fingerprint(results, name="student"):
    return results["models"][name]["fingerprint"]
