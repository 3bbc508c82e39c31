"""The vocabulary of every room: batches, model outputs, options, random streams, trees, JSON files.

Imports nothing of ours. A new type that several rooms speak in goes into `types.py`.
"""
