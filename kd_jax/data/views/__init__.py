"""Shows examples to a model, as tokens or as normalized images, augmented in training.

A view prepares a source once and then looks up batches of it by position. A new view is one file
here with a `prepare` and a `gather`; `kd_jax/data/run_datasets.py` chooses it.
"""
