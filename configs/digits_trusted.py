r"""Rows whose label is hard to believe set aside before anyone else learns from them, on digits.

uv run launch.py --config=configs/digits_trusted.py --workdir=runs/trusted
uv run launch.py --config=configs/digits_trusted.py:smoke               # seconds

Five models like the judge each look at the fifth of the training images that they haven't learned
from; where they contradict a label by confident learning (Northcutt et al.,
https://arxiv.org/abs/1911.00068), its row goes to `quarantine.jsonl`. Teacher, student and baseline
learn from what is left, `unsifted` from all images and from the judge, who learned from all of them
as well. Poison (`trusted_sets.trusted.poison`) is looked for by spectral signatures (Tran et al.,
https://arxiv.org/abs/1811.00636)."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "digits_trusted", 0, "float32"
    config.data = dict(
        name="digits",
        dir=None,
        train="train[:75%]",
        selection="train[75%:]",
        evaluation="test",
        inputs="image",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=0, flip=0.0),
        cleaning=dict(
            mode="repair",
            prepared="report",
            max_characters=20_000,
            max_pixels=50_000_000,
            near_duplicate=0.8,
        ),
    )
    config.view = dict(size=None, channels=1, mean=(0.3,), std=(0.37,))
    config.training = dict(
        batch_size=64,
        epochs=100.0,
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=2e-2, weight_decay=0.1, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=50),
    )
    config.trusted_sets = dict(
        trusted=dict(
            judge="judge", label_errors=True, label_share=None, folds=5, poison=None, mode="drop"
        )
    )
    config.models = dict(
        judge=dict(
            model=dict(name="vgg", depth=11, width=0.25, batch_norm=True, head=(), dropout=0.5),
            objective=HARD,
            training=dict(epochs=30.0, optimizer=dict(learning_rate=4e-3, weight_decay=1e-2)),
        ),
        teacher=dict(like="judge", data=("trusted",)),
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            data=("trusted",),
            teachers=("teacher",),
            objective=dict(soft=dict(term="soft_target_kl", weight=1.0, temperature=4.0)),
        ),
        baseline=dict(like="student", teachers=(), objective=HARD),
        unsifted=dict(like="student", data=("train",), teachers=("judge",)),
        unsifted_baseline=dict(like="baseline", data=("train",)),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=100, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        config.training.epochs = config.models.judge.training.epochs = 2.0
        config.training.schedule.warmup_steps = 1
        config.trusted_sets.trusted.folds = 2
    return config.lock()
