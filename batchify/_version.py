"""The version, alone in a module so that everything may import it."""

__version__ = "0.1.0"

JSON_VERSION = 1
"""The ``json_version`` of every object that a command prints: keys are added, never renamed."""
