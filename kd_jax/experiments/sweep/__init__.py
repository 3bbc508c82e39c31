"""Sweeps: a grid of overrides and seeds over one config, run here or one process a GPU.

`grid.py` lays the runs out, `run.py` runs and reports them, `workers.py` starts processes.
"""
