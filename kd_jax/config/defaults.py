"""Defaults of every key that an experiment need not give: all of them, and nowhere else."""

from typing import Any

DEFAULTS: dict[str, Any] = dict(
    seed=0,  # Of initial values, batches, dropout and everything else that is drawn.
    task="classification",  # What models predict; dict(name=..., **options) where it has any.
    primary=None,  # The metric that chooses and compares models; None: the task's first.
    dtype="float32",  # Of computation: float32, bfloat16, float16, float64; parameters stay wide.
    data=dict(
        dir=None,  # Where TFDS datasets lie; None: TFDS_DATA_DIR, else TFDS's own default.
        label="label",  # Column or feature with the class.
        max_rejected=0,  # Rows that can't be read before that is an error.
        header=None,  # Names of the columns of CSV and TSV files without any.
        id=None,  # Column of ids, by which a file's outputs are found; None: a row's place.
        class_names=None,  # Names of the classes by number, or a file of them; None: the data's.
        labelled=1.0,  # Share of the training labels that is used; other rows stay without one.
        augmentation=dict(
            crop=0,  # Pixels of padding, from which images are cropped at random.
            flip=0.0,  # Probability that an image is mirrored.
        ),
        cleaning=dict(
            mode="repair",  # Of your own files: off, report, drop or repair.
            prepared="report",  # Of TFDS's and our datasets, likewise.
            max_characters=20_000,  # Longer texts are set aside; None: none is too long.
            max_pixels=50_000_000,  # Larger images are set aside; None: none is too large.
            near_duplicate=0.8,  # Jaccard index from which two texts repeat each other.
        ),
    ),
    training=dict(
        batch_size=64,  # Global: a multiple of accumulate x devices.
        epochs=10.0,  # Passes over the training examples; fractions are allowed.
        accumulate=1,  # Microbatches in a batch, whose gradients are summed.
        augmented_epochs=None,  # After so many the same batches come again; None: never.
        patience=None,  # Evaluations without a better one after which it ends; None: it never does.
        optimizer=dict(
            name="adamw",  # adamw, adam or sgd.
            learning_rate=1e-3,  # The schedule's peak.
            weight_decay=1e-2,  # Of kernels and embeddings; with adamw and sgd.
            clip_norm=1.0,  # Global L2 norm of the gradient; None: no clipping.
        ),
        schedule=dict(
            name="cosine",  # constant, cosine, linear or step.
            warmup_steps=100,  # Steps of linear rise from 0.
        ),
    ),
    compare=dict(
        student="student",  # Whose gain is reported ...
        baseline="baseline",  # ... over the same model trained as long without a teacher ...
        teacher="teacher",  # ... and beside which teacher.
    ),
    evaluations={},  # Further datasets: name -> what differs from `data`.
    parallel=dict(
        backend="jit",  # jit or pmap.
        data=-1,  # Devices along the batch; -1: all that are left.
        fsdp=1,  # Devices that share each parameter; under jit.
        tensor=1,  # Devices that share heads, hidden layers and vocabularies; under jit.
        replicated=(),  # Models that are whole on each device nevertheless.
    ),
    checkpoint=dict(
        every_steps=100,  # Between evaluations on the selection split, each saved.
        keep_latest=2,  # How many of the newest stay.
        keep_best=1,  # How many of the best stay as well.
        keep_finished=False,  # Whether those of finished models stay when the run has ended.
        outputs_dir=None,  # Where teachers' outputs are kept; None: in the run's folder.
        use="best",  # Which one is reported, teaches and is exported: best or latest.
    ),
    logging=dict(
        every_steps=50,  # Between log lines.
        writers=("tensorboard",),  # Beside metrics.jsonl: any of tensorboard, wandb and mlflow.
    ),
)

FREE_OF_NAME = {"optimizer": ("clip_norm", "learning_rate"), "schedule": ("warmup_steps",)}
"""Defaults that hold for every optimizer and schedule, not only for the one that is the default."""

OWN_SPLITS = dict(train="train[:80%]", selection="train[80%:90%]", evaluation="train[90%:]")
"""Splits of a file or folder of your own."""

NAMED_SPLITS = dict(train="train[:90%]", selection="train[90%:]", evaluation="test")
"""Splits of a dataset that isn't one of `DATASETS`."""

# What models see where a config says nothing: a tokenizer trained on the data itself.
TEXT_VIEW = dict(tokenizer="trained", vocabulary_size=8_000, max_length=64)
IMAGE_VIEW = dict(size=None, channels=None, mean=(0.5,), std=(0.5,))

# These datasets have no validation split, so a part of the training split selects.
_LAST_20TH = dict(train="train[:95%]", selection="train[95%:]", evaluation="test", inputs="image")
_AS_GIVEN = dict(train="train", selection="validation", evaluation="test", inputs="text")

DATASETS: dict[str, dict[str, Any]] = {
    "cifar10": dict(
        data=_LAST_20TH,
        # ImageNet's statistics, which pretrained networks for colour images expect.
        view=dict(size=None, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    "digits": dict(
        data=dict(train="train[:75%]", selection="train[75%:]", evaluation="test", inputs="image"),
        view=dict(size=None, channels=1, mean=(0.3,), std=(0.37,)),
    ),
    "docstrings": dict(data=_AS_GIVEN, view=TEXT_VIEW),
    # Its training split consists of phrases cut from the same sentences, and a part of it would
    # select what memorizes best: half of the validation sentences select instead.
    "glue/sst2": dict(
        data=dict(
            train="train",
            selection="validation[:50%]",
            evaluation="validation[50%:]",
            inputs="sentence",
        ),
        view=TEXT_VIEW,
    ),
    "hostile_docstrings": dict(data=_AS_GIVEN, view=TEXT_VIEW),
    "mnist": dict(data=_LAST_20TH, view=dict(size=None, channels=1, mean=(0.1307,), std=(0.3081,))),
}
"""Known datasets: splits, column and view, each key of which an experiment may give itself."""

HARD: dict[str, Any] = dict(hard=dict(term="cross_entropy", weight=1.0))
"""The objective of a model that learns from labels alone."""


def soft_targets(*, temperature: float = 4.0, hard: float = 0.1) -> dict[str, Any]:
    """Returns Hinton's objective (https://arxiv.org/abs/1503.02531).

    Args:
      temperature: of both predictions.
      hard: weight of the cross-entropy with the labels; the soft targets weigh the rest of 1. At 0
        there is no such term.
    """
    # Rounded, because 1 - 0.9 is 0.09999999999999998, which nobody wants to read in a config.
    soft = dict(term="soft_target_kl", weight=float(round(1 - hard, 12)), temperature=temperature)
    labels = dict(hard=dict(term="cross_entropy", weight=hard)) if hard else {}
    return labels | dict(soft=soft)
