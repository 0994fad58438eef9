"""Adapters of deep-learning frameworks, one module each, imported by name only."""
