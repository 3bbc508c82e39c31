"""Names that configs use for training data and sets."""

TRAIN = "train"
"""The training split's name among what a model learns from."""


TRANSFER, TRUSTED = "transfer_sets", "trusted_sets"
"""Keys of the config: name of a set -> its section."""

WHOLE_TEXTS = "whole_texts"
"""Key of `data.selection` where it is no split: how many whole training texts select; see
`kd_jax.data.whole_texts`."""
