r"""Counts the knowledge points of student and baseline on digits, in ink and in background.

  uv run launch.py --config=configs/digits.py --sweep=FILE --workdir=runs/digits_sweep
  uv run benchmarks/knowledge_points.py runs/digits_sweep [--images=64]

Noise is learned for the first test digits of each finished model of a sweep (Cheng et al.,
https://arxiv.org/abs/2003.03622): a pixel is a knowledge point where its entropy lies below the
background's mean by more than the threshold. Ink is what is not black. Prints the mean and the
standard deviation over the seeds of the points in an image's ink and background, and of lambda, the
share of the points that lie in ink.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.analysis.knowledge import count_points, knowledge_points
from kd_jax.analysis.noise import entropy, feature_variance, learn_noise
from kd_jax.data.open import open_source
from kd_jax.data.views.image import ImageView
from kd_jax.models.weights import load

STEPS, THRESHOLD = 100, 0.2


def learned_entropy(folder: Path, images: np.ndarray) -> np.ndarray:
    """Returns [N, H, W], in nats, the entropy of the noise learned for each pixel.

    It is large where a pixel may change much before the pooled features do.
    """
    module, variables = load.load(folder)

    @jax.jit
    def learn(variables, images):
        # The layer that the classifier reads: what the whole model knows of a pixel passes through
        # it.
        def features_of(x):
            return module.apply(variables, x).features["pooled"]

        noise = learn_noise(
            features_of,
            images,
            key=jax.random.key(0),
            units=images.shape[1:3],
            feature_variance=feature_variance(features_of(images)),
            entropy_weight=1e-3,
            steps=STEPS,
            learning_rate=0.2,
            samples=4,
            initial_sigma=0.1,
            max_sigma=10.0,
        )
        return entropy(noise)

    return np.asarray(learn(variables, jnp.asarray(images)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="a finished sweep of an experiment on digits")
    parser.add_argument("--models", default="teacher,student,baseline")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    source = open_source(
        "digits",
        f"test[:{options.images}]",
        dir=None,
        inputs="image",
        label="label",
        max_rejected=0,
    )
    ink = np.asarray(source.inputs)[..., 0] > 0
    runs = json.loads((options.sweep / "sweep.json").read_text())["runs"]
    for name in options.models.split(","):
        rows, began = [], time.perf_counter()
        for run in runs:
            folder = Path(run["workdir"]) / name
            view = json.loads((folder / "finished.json").read_text())["view"]
            # Each model reads the digits by the view that is stored beside its weights.
            images = ImageView(
                view["size"], tuple(view["mean"]), tuple(view["std"]), view["channels"]
            ).prepare(source)
            pixels = images.gather(np.arange(len(source)), None)["images"]
            found = count_points(
                knowledge_points(learned_entropy(folder, pixels), ink, threshold=THRESHOLD), ink
            )
            rows.append(
                [np.mean(found.foreground), np.mean(found.background), np.nanmean(found.ratio)]
            )
        mean, spread = (
            np.mean(rows, axis=0),
            np.std(rows, axis=0, ddof=1) if len(rows) > 1 else np.zeros(3),
        )
        shown = ", ".join(
            f"{what} {m:.2f} ± {s:.2f}"
            for what, m, s in zip(("in ink", "in background", "lambda"), mean, spread, strict=True)
        )
        print(
            f"{name} ({len(rows)} seeds, {(time.perf_counter() - began) / len(rows):.0f} s each):"
            f" {shown}",
            flush=True,
        )


if __name__ == "__main__":
    main()
