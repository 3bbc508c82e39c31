"""Runs an experiment: flags -> config -> one call.

uv run launch.py                                               the default experiment, digits
uv run launch.py --config=configs/sst2_minilm.py --workdir=DIR [--config.training.epochs=2 ...]
uv run launch.py --config=configs/sst2_minilm.py:smoke         the same in seconds, on built-in data
uv run launch.py --config=configs/digits.py --sweep=FILE       a grid of overrides x seeds, from a JSON file
uv run launch.py --stage=export --workdir=DIR                  a finished student as files for deployment
uv run launch.py --stage=predict --workdir=DIR --input=FILE    its labels and probabilities of new inputs
uv run launch.py --stage=explain --workdir=DIR                 what teacher and student rest on, with plots
uv run launch.py --stage=explain --workdir=DIR --players=terms what each term of the student's objective is worth
"""

from kd_jax.cli import main

if __name__ == "__main__":
    main()
