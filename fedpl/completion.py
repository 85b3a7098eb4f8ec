"""Completion by the shell, where argcomplete is installed (the extra ``completion``).

The shell starts the command itself with `_ARGCOMPLETE` set, and takes for an answer what its parser knows.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from inspect import isabstract
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from fedpl.deferred import deferred
from fedpl.presets import names
from fedpl.settings import subclasses

if TYPE_CHECKING:
    import argcomplete
else:
    argcomplete = deferred("argcomplete")

_ASKED = "_ARGCOMPLETE"  # holds how many words are the command's name
Completer = Callable[..., Iterable[str]]


def asked() -> bool:
    """Whether it is a shell that asks how a command may go on."""
    return _ASKED in os.environ and find_spec("argcomplete") is not None


def answer(parser: argparse.ArgumentParser) -> None:
    """If a shell asks, tell it what may follow, and end the process."""
    if asked():
        argcomplete.autocomplete(parser)


def command(commands: Sequence[str]) -> list[str]:
    """The command that a shell's line names, from where on its own parser answers; an answer if none yet."""
    own = int(os.environ[_ASKED])
    words = argcomplete.split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3][own:]
    if words and words[0] in commands:
        os.environ[_ASKED] = str(own + 1)
        return [words[0]]
    parser = argparse.ArgumentParser(prog="fedpl")
    parser.add_argument("command", choices=commands)
    answer(parser)
    return []


def methods(prefix: str, **_: object) -> list[str]:
    """Names of methods, of several behind a comma the last."""
    before = prefix[: prefix.rfind(",") + 1]
    return [before + name for name in names("method")]


def configurations(prefix: str, **others: object) -> list[str]:
    """Names of configurations that ship, and YAML files."""
    files = argcomplete.FilesCompleter(("yaml", "yml"))(prefix, **others)
    return [*names(""), *names("experiment"), *files]


def sweeps(prefix: str, **others: object) -> list[str]:
    """Names of sweep files that ship, and YAML files."""
    return [*names("sweep"), *argcomplete.FilesCompleter(("yaml", "yml"))(prefix, **others)]


def choices(kind: Any) -> list[str]:
    """What a setting of a kind may be: a literal's values, the classes below an abstract one."""
    if kind is bool:
        return ["true", "false"]
    if kind is NoneType:
        return ["null"]
    if isinstance(kind, type):
        return [cls.__name__ for cls in subclasses(kind) if not isabstract(cls)] if isabstract(kind) else []
    if get_origin(kind) is Literal:
        return list(map(str, get_args(kind)))
    return [one for part in get_args(kind) for one in choices(part)]


def complete_settings(parser: argparse.ArgumentParser) -> None:
    """Let a parser of settings know what each may be."""
    for action in parser._actions:
        if (kind := getattr(action, "_typehint", None)) is not None:
            completed(action, partial(_known, choices(kind)))


def _known(values: list[str], **_: object) -> list[str]:
    return values


def completed(action: argparse.Action, completer: Completer) -> None:
    """Complete an option's value so."""
    action.completer = completer  # type: ignore[attr-defined]
