"""Packages that come with an extra of the distribution, imported where they are used."""

from importlib import import_module
from typing import Any

from runtime.errors import UsageError

DISTRIBUTION = "dynamic-mobile-former"


def require(module: str, *, extra: str) -> Any:
    """Import ``module``.

    UsageError with the command that installs it where it is missing or broken.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(f"cannot import {module} ({error}): pip install '{DISTRIBUTION}[{extra}]'") from error
