r"""Who teaches whom on digits: a chain through a teacher assistant, a born-again network, a model's
  own average.

uv run launch.py --config=configs/digits_lineage.py --workdir=runs/lineage
uv run launch.py --config=configs/digits_lineage.py:smoke               # seconds

`student` learns from the assistant, which learned from the teacher (Mirzadeh et al.,
https://arxiv.org/abs/1902.03393); `direct` learns from the teacher itself; `born_again` from the
finished baseline, which is its own architecture (Furlanello et al.,
https://arxiv.org/abs/1805.04770); `averaged` from the labels and from its own moving average
(Tarvainen and Valpola, https://arxiv.org/abs/1703.01780)."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}
SOFT = {"soft": {"term": "soft_target_kl", "weight": 1.0, "temperature": 4.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "digits_lineage", 0, "float32"
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
        teacher=dict(
            model=dict(name="vgg", depth=11, width=0.25, batch_norm=True, head=(), dropout=0.5),
            objective=HARD,
            training=dict(epochs=60.0, optimizer=dict(learning_rate=4e-3, weight_decay=1e-2)),
        ),
        assistant=dict(
            model=dict(name="cnn", widths=(32, 64), batch_norm=False),
            teachers=("teacher",),
            objective=SOFT,
        ),
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("assistant",),
            objective=SOFT,
        ),
        direct=dict(like="student", teachers=("teacher",)),
        baseline=dict(like="student", teachers=(), objective=HARD),
        born_again=dict(like="student", teachers=("baseline",)),
        averaged=dict(
            like="student",
            teachers=("ema:averaged",),
            ema=dict(decay=0.99),
            objective=HARD | dict(own=dict(term="soft_target_kl", weight=1.0, temperature=1.0)),
        ),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = {}
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=100, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        config.training.epochs = config.models.teacher.training.epochs = 0.25
        config.training.schedule.warmup_steps = 1
    return config.lock()
