r"""Who teaches whom on digits: a chain through a teacher assistant, a born-again network, a model's
  own average.

uv run launch.py --config=configs/digits_lineage.py --workdir=runs/lineage
uv run launch.py --config=configs/digits_lineage.py:smoke               # seconds

`student` learns from the assistant, which learned from the teacher (Mirzadeh et al.,
https://arxiv.org/abs/1902.03393); `direct` learns from the teacher itself; `born_again` from the
finished baseline, which is its own architecture (Furlanello et al.,
https://arxiv.org/abs/1805.04770); `averaged` from the labels and from its own moving average
(Tarvainen and Valpola, https://arxiv.org/abs/1703.01780)."""

from kd_jax.config import HARD, experiment, soft_targets

SOFT = soft_targets(temperature=4.0, hard=0)
OWN = HARD | dict(own=dict(term="soft_target_kl", weight=1.0, temperature=1.0))


def get_config():
    return experiment(
        "digits_lineage",
        start="digits",
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            teachers=("assistant",),
            objective=SOFT,
        ),
        models=dict(
            assistant=dict(
                model=dict(name="cnn", widths=(32, 64), batch_norm=False),
                teachers=("teacher",),
                objective=SOFT,
            ),
            direct=dict(like="student", teachers=("teacher",)),
            born_again=dict(like="student", teachers=("baseline",)),
            averaged=dict(
                like="student", teachers=("ema:averaged",), ema=dict(decay=0.99), objective=OWN
            ),
        ),
    )
