"""Knowledge distillation in JAX."""
