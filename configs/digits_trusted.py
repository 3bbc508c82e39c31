r"""Rows whose label is hard to believe set aside before anyone else learns from them, on digits.

uv run launch.py --config=configs/digits_trusted.py --workdir=runs/trusted
uv run launch.py --config=configs/digits_trusted.py:smoke               # seconds

Five models like the judge each look at the fifth of the training images that they haven't learned
from; where they contradict a label by confident learning (Northcutt et al.,
https://arxiv.org/abs/1911.00068), its row goes to `quarantine.jsonl`. Teacher, student and baseline
learn from what is left, `unsifted` from all images and from the judge, who learned from all of them
as well. Poison (`trusted_sets.trusted.poison`) is looked for by spectral signatures (Tran et al.,
https://arxiv.org/abs/1811.00636)."""

from kd_jax.config import HARD, experiment, soft_targets


def get_config():
    return experiment(
        "digits_trusted",
        start="digits",
        trusted_sets=dict(
            trusted=dict(
                judge="judge",
                label_errors=True,
                label_share=None,
                folds=5,
                poison=None,
                mode="drop",
            )
        ),
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            data=("trusted",),
            teachers=("teacher",),
            objective=soft_targets(temperature=4.0, hard=0),
        ),
        models=dict(
            judge=dict(
                model=dict(name="vgg", depth=11, width=0.25, batch_norm=True, head=(), dropout=0.5),
                objective=HARD,
                training=dict(epochs=30.0, optimizer=dict(learning_rate=4e-3, weight_decay=1e-2)),
            ),
            teacher=dict(like="judge", data=("trusted",)),
            unsifted=dict(like="student", data=("train",), teachers=("judge",)),
            unsifted_baseline=dict(like="baseline", data=("train",)),
        ),
    )
