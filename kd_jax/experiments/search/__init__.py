"""Searches: settings drawn from a space, the better half of which is trained longer.

`space.py` reads the search file and draws settings, `run.py` runs and reports them.
"""
