"""Data, from a dataset's name to batches: readers open it as a `Source`, cleaning repairs it, views
  show it to a model.

A reader of a new format is one file in `readers` and one line in `open.py`.
"""
