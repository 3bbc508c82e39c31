"""What every other package builds on: batches, model outputs, options, random streams, JSON files.

Imports nothing else of kd_jax, so that nothing here can form an import cycle. A type that several
packages use goes into `types.py`; anything that knows about data, models or training does not.
"""
