"""Heavy modules that are imported when they are first used: settings stay free of their start-up time."""

from importlib import import_module
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def deferred(name: str) -> Any:
    """The module of this name, imported at its first use; for type checkers, import it for real beside it."""
    return _Deferred(name)
