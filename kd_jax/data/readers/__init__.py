"""Opens datasets as a `Source` of inputs and labels; bad rows are set aside with the reason.

There is one file for each kind of data: tables, image folders, TFDS. A reader of a new format is
one file here and one line in `kd_jax/data/open.py`. The order of rows must stay: splits, caches and
random draws go by a row's position.
"""
