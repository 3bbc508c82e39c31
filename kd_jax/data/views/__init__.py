"""Views: how one model sees an example, as tokens or as a normalized image, and augmentation before
  it.

A new view is one file here; `kd_jax/data/run_datasets.py` chooses it.
"""
