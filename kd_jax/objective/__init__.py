"""What a student minimizes: a weighted sum of named terms, and values that change with the step.

A term is in `terms`; the arithmetic of a loss is in `kd_jax/losses`.
"""
