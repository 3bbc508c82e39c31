r"""Two students of digits that learn from each other while both are trained: deep mutual learning.

uv run launch.py --config=configs/digits_peers.py --workdir=runs/peers
uv run launch.py --config=configs/digits_peers.py:smoke                 # seconds

After Zhang et al. (https://arxiv.org/abs/1706.00384), both updated in one step: `student` and
`wide` learn from the labels and from each other's predictions in the same step; `baseline` and
`baseline_wide` are the same models, each by itself. No model is finished before the others, so the
compared teacher is the wide baseline, which teaches nobody."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}
MUTUAL = HARD | {"mutual": {"term": "soft_target_kl", "weight": 1.0, "temperature": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "digits_peers", 0, "float32"
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
    config.models = dict(
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("peer:wide",),
            objective=MUTUAL,
        ),
        wide=dict(
            model=dict(name="cnn", widths=(32, 64), batch_norm=False),
            teachers=("peer:student",),
            objective=MUTUAL,
        ),
        baseline=dict(like="student", teachers=(), objective=HARD),
        baseline_wide=dict(like="wide", teachers=(), objective=HARD),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="baseline_wide")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=100, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        config.training.epochs = 0.25
        config.training.schedule.warmup_steps = 1
    return config.lock()
