"""Splits in the clothes of deep-learning frameworks, each imported when it is asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from batchify.errors import ExtraMissingError


def adapter(name: str, extra: str, also: str = "") -> ModuleType:
    """Import the adapter of a framework, and the framework with it.

    Parameters
    ----------
    name : str
        The module of this package.
    extra : str
        What installs the framework.
    also : str
        What else it takes, for the message.

    Raises
    ------
    ExtraMissingError
        If the framework cannot be imported.
    """
    try:
        return importlib.import_module(f"batchify.frameworks.{name}")
    except ImportError as error:
        raise ExtraMissingError(
            f"this needs {extra}, which cannot be imported ({error}); "
            f"pip install 'batchify-h5[{extra}]'{also}"
        ) from error
