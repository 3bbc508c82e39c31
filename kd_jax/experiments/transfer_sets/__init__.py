"""Transfer sets: new inputs, labelled by a teacher, for a student to learn from.

A new way to generate inputs is one file here and one line in `generate.py`.
"""
