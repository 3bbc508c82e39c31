r"""The published CIFAR-10 ResNet-56 distilled into a ResNet-8, by any method of the field.

  uv run launch.py --config=configs/cifar10_resnet56.py:dkd --workdir=runs/dkd \
      --config.models.teacher.model.pretrained=resnet56-4bfd9763.npz
  uv run launch.py --config=configs/cifar10_resnet56.py:dkd,quick ...
  uv run launch.py --config=configs/cifar10_resnet56.py:dkd,smoke
  uv run launch.py --config=configs/cifar10_resnet56.py:comparison,quick

Variants: a method of METHODS (default: kd) or "comparison", then "quick" or "smoke" after a comma.
The weights are those of the papers' code for CIFAR. The teacher is akamaster's, his state dict
saved by numpy.savez. The dataset is TFDS's `cifar10`; set TFDS_DATA_DIR or --config.data.dir where
it is prepared already. """

from typing import Any

from kd_jax.config import HARD, experiment

STAGES = ("block_0", "block_1", "block_2")
BEFORE_RELU = ("block_0_preact", "block_1_preact", "block_2_preact")
WARM_UP = dict(name="linear", start=0.0, stop=1.0)
"""The weight's rise over the first 20 of 240 epochs, completed by `_warm_up`."""


def _with_labels(term: str, weight: Any, **options: Any) -> dict[str, Any]:
    return HARD | {term: dict(term=term, weight=weight, **options)}


def _maps(
    term: str, weight: float, layers: tuple[str, ...] = STAGES, **options: Any
) -> dict[str, Any]:
    return _with_labels(term, weight, student=layers, teacher=layers, **options)


METHODS: dict[str, dict[str, Any]] = {
    "activation_boundary": _maps("activation_boundary", 1e-3, BEFORE_RELU, mapping="connector"),
    "attention_transfer": _maps("attention_transfer", 1000.0),
    "correlation": _with_labels("correlation_congruence_adjacent", 0.02, mapping="linear"),
    "crd": _with_labels("contrastive_representation", 0.8),
    "deit_hard": dict(
        hard=dict(term="cross_entropy", weight=0.5), deit_hard=dict(term="deit_hard", weight=0.5)
    ),
    "dist": _with_labels("dist", 1.0, temperature=4.0, inter_weight=2.0, intra_weight=2.0),
    "dkd": _with_labels("decoupled_kd", WARM_UP),
    "factor_transfer": _with_labels("factor_transfer", 500.0, student="block_2", teacher="block_2"),
    "flow": _maps("flow_of_solution", 50.0),
    "hint": _with_labels(
        "hidden_mse", 100.0, student="block_1", teacher="block_1", mapping="convolution"
    ),
    "kd": dict(
        hard=dict(term="cross_entropy", weight=0.1),
        soft=dict(term="soft_target_kl", weight=0.9, temperature=4.0),
    ),
    "neuron_selectivity": _maps("neuron_selectivity", 50.0),
    "overhaul": _maps("overhaul", 1e-3, BEFORE_RELU),
    "probabilistic": _with_labels("probabilistic_transfer", 30000.0),
    "review": _maps("review", WARM_UP),
    "rkd": HARD
    | dict(
        distance=dict(term="rkd_distance", weight=25.0), angle=dict(term="rkd_angle", weight=50.0)
    ),
    "similarity": _with_labels(
        "similarity_preserving", 3000.0, student="block_2", teacher="block_2"
    ),
    "standardized": dict(
        hard=dict(term="cross_entropy", weight=0.1),
        soft=dict(term="standardized_kl", weight=9.0, temperature=2.0),
    ),
    "variational": _maps("variational", 1.0),
}
COMPARED = ("kd", "dkd", "dist", "attention_transfer", "rkd", "crd", "review")


def get_config(variant: str = ""):
    method, quick = _parse(variant)
    epochs, rows = (2.0, 9_500) if quick else (240.0, 47_500)
    main, others = (COMPARED[0], COMPARED[1:]) if method == "comparison" else (method, ())
    methods = {name: _warm_up(METHODS[name], rows * epochs / 64) for name in (main, *others)}
    step = dict(name="step", boundaries=(150 / 240, 180 / 240, 210 / 240), factor=0.1)
    return experiment(
        f"cifar10_resnet56_{method}",
        data=dict(
            name="cifar10",
            train="train[:19%]" if quick else "train[:95%]",
            selection="train[99%:]" if quick else "train[95%:]",
            augmentation=dict(crop=4, flip=0.5),
        ),
        training=dict(
            epochs=epochs,
            optimizer=dict(
                name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, clip_norm=None
            ),
            schedule=dict(warmup_steps=30) if quick else dict(**step, warmup_steps=0),
        ),
        teacher=dict(model=dict(pretrained="resnet56-4bfd9763.npz")),
        student=dict(
            model=dict(name="cifar_resnet", depth=8, stem=16, widths=(16, 32, 64), shortcut="pad"),
            objective=methods[main],
        ),
        models={name: dict(like="student", objective=methods[name]) for name in others},
        checkpoint=dict(every_steps=150 if quick else 1000),
    )


def _parse(variant: str) -> tuple[str, bool]:
    """The method, "kd" unless named, and whether the run is the quick one."""
    words = [word for word in variant.split(",") if word]
    quick = bool(words) and words[-1] == "quick"
    words = words[:-1] if quick else words
    method = words.pop() if words else "kd"
    if words or method not in {*METHODS, "comparison"}:
        raise ValueError(
            f"unknown variant {variant!r}; there are comparison, {', '.join(METHODS)}, each also"
            " with ,quick or ,smoke"
        )
    return method, quick


def _warm_up(objective: dict[str, Any], steps: float) -> dict[str, Any]:
    """Completes the weights that rise over the first twelfth of the training's steps."""
    rise = dict(WARM_UP, steps=max(1, round(steps / 12)))
    return {
        name: term | dict(weight=rise) if term["weight"] is WARM_UP else term
        for name, term in objective.items()
    }
