"""Published weights: found, opened, loaded into our modules, and written back.

Only safetensors and npz files are read; nothing is unpickled.
"""
