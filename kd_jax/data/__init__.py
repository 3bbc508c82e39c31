"""Turns a dataset's name into batches.

`readers` open it as a `Source`, `cleaning` repairs it or sets rows aside, `views` show it to a
model, `batches.py` shuffles and pads it. A reader of a new format is one file in `readers` and one
line in `open.py`; the order of batches and what is hashed must stay, or runs can't be compared.
"""
