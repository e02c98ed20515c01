"""Checks for a person with a GPU: `tests/gpu/check`."""
