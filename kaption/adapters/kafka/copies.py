"""Copies a library's function with other objects for some of its names, and leaves the library as it is."""

from types import FunctionType
from typing import Any


def with_names(function: Any, **names: object) -> Any:  # the libraries ship no types
    """Return a copy of ``function`` that finds ``names`` instead of its module's objects of these names.

    To replace the module's own objects would change them for the whole process, also for a user's clients.
    """
    copy = FunctionType(
        function.__code__, function.__globals__ | names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
