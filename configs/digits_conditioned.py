r"""A student that reads its teacher's logits beside each digit, every second time in training, and
also works alone.

uv run launch.py --config=configs/digits_conditioned.py --workdir=runs/conditioned
uv run launch.py --config=configs/digits_conditioned.py:smoke           # seconds

`student` is evaluated alone, as any model, and with the logits (`with_teacher` in results.json);
`unconditioned` is the same student, distilled without them."""

from kd_jax.config import experiment, soft_targets

SOFT = soft_targets(temperature=4.0, hard=0)


def get_config():
    return experiment(
        "digits_conditioned",
        start="digits",
        student=dict(
            model=dict(name="cnn", widths=(16, 32), batch_norm=False),
            condition=dict(on="teacher", output="logits", map="linear", drop=0.5),
            objective=SOFT,
        ),
        models=dict(unconditioned=dict(like="student", condition=None)),
    )
