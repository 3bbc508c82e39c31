"""Sweeps: a grid of overrides and seeds over one config, run here, one process a GPU, or by many
workers.

`grid.py` lays the runs out, `run.py` runs them, `summary.py` reports them, `workers.py` starts
processes; `queue.py` is one worker among others, by the claims of `claims.py`.
"""
