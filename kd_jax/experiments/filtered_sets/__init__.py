"""Filtered sets: the training rows that a scoring model finds nothing wrong with.

In configs they are `trusted_sets`.
"""
