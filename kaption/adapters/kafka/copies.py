"""A library's function with other things behind some of its names; the library keeps its own."""

from types import FunctionType
from typing import Any


def with_names(function: Any, **names: object) -> Any:  # the libraries ship no types
    """A copy of ``function`` that finds ``names`` in place of what its module has by them.

    Who replaces the module's own would do it for everybody in the process: a user's clients, too.
    """
    copy = FunctionType(
        function.__code__, function.__globals__ | names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
