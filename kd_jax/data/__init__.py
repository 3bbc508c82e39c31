"""From a dataset's name to batches: sources, views of them, and the pipeline that batches them."""

from kd_jax.data.image import ImageView
from kd_jax.data.pipeline import TrainingBatches, bucket_lengths, evaluation_batches, training_batches
from kd_jax.data.sources import Rejected, Source, open_source
from kd_jax.data.text import TextView, load_tokenizer

__all__ = [
    "ImageView",
    "Rejected",
    "Source",
    "TextView",
    "TrainingBatches",
    "bucket_lengths",
    "evaluation_batches",
    "load_tokenizer",
    "open_source",
    "training_batches",
]
