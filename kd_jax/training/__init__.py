"""One training path: state, step, loop, checkpoints, devices, optimizers and evaluation.

The step is pure; only `sharding.py` knows of devices, only `checkpoints.py` of Orbax.
"""
