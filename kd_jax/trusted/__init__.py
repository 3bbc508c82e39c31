"""Trusted sets: what is left of the training split when a model has doubted its rows."""
