"""Teachers: frozen models, ensembles, stored outputs, and students that are conditioned on a
  teacher.

Each is a `ForwardFn`, so the step does not tell them apart.
"""
