r"""The published CIFAR-10 ResNet-56 distilled into a ResNet-8, by any method of the field.

  uv run launch.py --config=configs/cifar10_resnet56.py:dkd --workdir=runs/dkd \
      --config.models.teacher.model.pretrained=resnet56-4bfd9763.npz
  uv run launch.py --config=configs/cifar10_resnet56.py:dkd,quick ...     # a fifth of the data, 2 epochs
  uv run launch.py --config=configs/cifar10_resnet56.py:dkd,smoke         # seconds, on digits, another teacher
  uv run launch.py --config=configs/cifar10_resnet56.py:comparison,quick  # one student for each of COMPARED

Variants: a method of METHODS (default: kd) or "comparison", then "quick" or "smoke" after a comma.
The weights are those of the papers' code for CIFAR. The teacher is akamaster's, his state dict
saved by numpy.savez. The dataset is TFDS's `cifar10`; set TFDS_DATA_DIR or --config.data.dir where
it is prepared already. """

from typing import Any

from ml_collections import ConfigDict

HARD = dict(hard=dict(term="cross_entropy", weight=1.0))
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


def get_config(variant: str = "") -> ConfigDict:
    method, size = _parse(variant)
    config = ConfigDict()
    config.name, config.seed, config.dtype = f"cifar10_resnet56_{method}", 0, "float32"
    config.data = dict(
        name="cifar10",
        dir=None,
        train="train[:95%]",
        selection="train[95%:]",
        evaluation="test",
        inputs="image",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=4, flip=0.5),
        cleaning=dict(
            mode="repair",
            prepared="report",
            max_characters=20_000,
            max_pixels=50_000_000,
            near_duplicate=0.8,
        ),
    )
    config.view = dict(size=None, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    config.training = dict(
        batch_size=64,
        epochs=240.0,
        accumulate=1,
        optimizer=dict(
            name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, clip_norm=None
        ),
        schedule=dict(
            name="step", boundaries=(150 / 240, 180 / 240, 210 / 240), factor=0.1, warmup_steps=0
        ),
    )
    student = dict(name="cifar_resnet", depth=8, stem=16, widths=(16, 32, 64), shortcut="pad")
    main = COMPARED[0] if method == "comparison" else method
    config.models = dict(
        teacher=dict(model=dict(pretrained="resnet56-4bfd9763.npz")),
        student=dict(model=student, teachers=("teacher",), objective=METHODS[main]),
        baseline=dict(like="student", teachers=(), objective=HARD),
    )
    if method == "comparison":
        for other in COMPARED[1:]:
            config.models[other] = dict(like="student", objective=METHODS[other])
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=1000, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if size:
        {"quick": _quick, "smoke": _smoke}[size](config)
    _warm_up(config, train_examples={"": 47_500, "quick": 9_500, "smoke": 280}[size])
    return config.lock()


def _parse(variant: str) -> tuple[str, str]:
    """The method, "kd" unless named, and "", "quick" or "smoke"."""
    words = [word for word in variant.split(",") if word]
    size = words.pop() if words and words[-1] in ("quick", "smoke") else ""
    method = words.pop() if words else "kd"
    if words or method not in {*METHODS, "comparison"}:
        raise ValueError(
            f"unknown variant {variant!r}; there are comparison, {', '.join(METHODS)}, each also with ,quick or ,smoke"
        )
    return method, size


def _warm_up(config: ConfigDict, train_examples: int) -> None:
    """Completes the weights that rise over the first twelfth of the training."""
    steps = max(1, round(train_examples * config.training.epochs / config.training.batch_size / 12))
    for model in config.models.values():
        for term in model.get("objective", {}).values():
            if isinstance(term.weight, ConfigDict):
                term.weight.steps = steps


def _quick(config: ConfigDict) -> None:
    """A fifth of the data, 2 epochs: minutes on a laptop."""
    config.data.update(train="train[:19%]", selection="train[99%:]")
    config.training.epochs = 2.0
    config.training.schedule = dict(name="cosine", warmup_steps=30)
    config.checkpoint.every_steps = 150


def _smoke(config: ConfigDict) -> None:
    """Digits in three channels, a small teacher that is trained for a few steps."""
    config.data.update(
        name="digits",
        train="train[:20%]",
        selection="train[80%:]",
        augmentation=dict(crop=1, flip=0.0),
    )
    config.training.update(batch_size=32, epochs=0.5)
    config.training.optimizer.learning_rate = 5e-3
    config.training.schedule = dict(name="constant", warmup_steps=1)
    small = dict(name="cifar_resnet", depth=8, stem=4, widths=(4, 8, 8), shortcut="pad")
    config.models.teacher = dict(model=small | dict(depth=14), objective=HARD)
    config.models.student.model = small
    for model in config.models.values():
        if "contrastive_representation" in model.get("objective", {}):
            model.objective.contrastive_representation.update(negatives=32, width=16)
