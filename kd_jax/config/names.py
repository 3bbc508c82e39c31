"""Names that configs use for training data and sets."""

TRAIN, LABELLED = "train", "labelled"
"""Names, among what a model learns from, of the training split and of its rows with a label."""

TRANSFER, TRUSTED = "transfer_sets", "trusted_sets"
"""Keys of the config: name of a set -> its section."""

WHOLE_TEXTS = "whole_texts"
"""Key of `data.selection` where it is no split: how many whole training texts select; see
`kd_jax.data.whole_texts`."""
