"""An experiment as a config describes it: its keys and defaults, inheritance, names, order and
  identity.

Reads no data and builds no model. A new key is one line in `defaults.py` and one in `schema.py`.
"""
