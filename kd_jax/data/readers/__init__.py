"""Readers: from a dataset's name to a `Source` of inputs and labels, bad rows set aside with the
  reason.

A reader of a new format is one file here and one line in `kd_jax/data/open.py`.
"""
