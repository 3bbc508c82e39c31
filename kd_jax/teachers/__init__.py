"""Frozen teachers: how a student reads them other than by running them in every step."""
