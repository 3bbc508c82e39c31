"""Networks for text, a family a file, each returning `ModelOutput`.

A new one is one file here and one line in `kd_jax/models/registry.py`.
"""
