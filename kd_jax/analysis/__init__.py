"""Pure functions that explain models: Shapley and Banzhaf values, attribution, knowledge points.

Imports nothing of ours but `core`, `losses`.
"""
