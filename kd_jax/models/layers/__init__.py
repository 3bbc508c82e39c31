"""Layers that several networks share: attention, transformer blocks, dropout, normalization.

Every dtype rule is in `normalization.py`.
"""
