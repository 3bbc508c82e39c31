r"""Two students of digits that learn from each other while both are trained: deep mutual learning.

uv run launch.py --config=configs/digits_peers.py --workdir=runs/peers
uv run launch.py --config=configs/digits_peers.py:smoke                 # seconds

After Zhang et al. (https://arxiv.org/abs/1706.00384), both updated in one step: `student` and
`wide` learn from the labels and from each other's predictions in the same step; `baseline` and
`baseline_wide` are the same models, each by itself. No model is finished before the others, so the
compared teacher is the wide baseline, which teaches nobody."""

from kd_jax.config import HARD, experiment

MUTUAL = HARD | dict(mutual=dict(term="soft_target_kl", weight=1.0, temperature=1.0))
WIDE = dict(name="cnn", widths=(32, 64), batch_norm=False)


def get_config():
    return experiment(
        "digits_peers",
        start="digits",
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("peer:wide",),
            objective=MUTUAL,
        ),
        models=dict(
            wide=dict(model=WIDE, teachers=("peer:student",), objective=MUTUAL),
            baseline_wide=dict(like="wide", teachers=(), objective=HARD),
        ),
        compare=dict(teacher="baseline_wide"),
    )
