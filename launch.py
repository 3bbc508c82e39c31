"""Runs an experiment from a checkout; `uv run launch.py --help` lists what it can do."""

from kd_jax.cli import main

if __name__ == "__main__":
    main()
