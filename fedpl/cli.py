"""The command line: YAML files and dotted overrides, checked before anything heavy is imported."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from types import NoneType
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from fedpl.config import Config, problems
from fedpl.data import Source
from fedpl.errors import UserError
from fedpl.objectives import Objective
from fedpl.server import Similarity, Weighting

# How jsonargparse words a key, an option of a class or a class that does not exist.
_UNKNOWN = (
    r"Group '([\w.]+)' does not accept option '([\w.]+)'",
    r"unrecognized arguments: --([\w.]+)",
    r"Option '([\w.]+)' is not accepted",
    r"Key '([\w.]+)' is not expected",
    r"No action for key '([\w.]+)'",
    r"dot import path string: ([\w.]+)",
    r"Problem with given class_path '([\w.]+)'",
)


class Invocation(NamedTuple):
    """One run as the command line describes it.

    Attributes:
        config: The configuration, checked.
        settings: The same as plain values, for W&B.
        resolved: The same as YAML without the run directory: it can be run again as it is.
    """

    config: Config
    settings: dict[str, Any]
    resolved: str


class _Refused(SystemExit):
    """A command line that does not parse. No `Exception`: jsonargparse would take it for one of its own."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class _Parser(ArgumentParser):
    """Errors in one line, with the nearest valid key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(str(message).split())
        raise _Refused(text + _suggestion(text, self))


class _Options(argparse.ArgumentParser):
    """The options of one entry point beside the settings of a run."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def fail(message: str) -> NoReturn:
    """Print one line and leave with the exit code of a wrong call."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def make_parser(program: str, description: str) -> ArgumentParser:
    """A parser whose keys are the fields of `Config`."""
    set_parsing_settings(docstring_parse_attribute_docstrings=False)
    parser = _Parser(prog=program, description=description, default_env=False)
    parser.add_argument("--config", action="config", help="YAML file; give several and later ones win.")
    parser.add_class_arguments(Config, nested_key=None)
    return parser


def read(parser: ArgumentParser, argv: Sequence[str] | None) -> tuple[Config, Namespace]:
    """The configuration of a command line, instantiated and checked, and the same as plain settings.

    Raises:
        UserError: If the command line does not parse or its settings do not fit.
    """
    try:
        settings = parser.parse_args(argv)
    except _Refused as refused:
        raise UserError(refused.message) from None
    empty = [f"{key}: expected a value, got null" for key in _empty(Config, settings)]
    if empty:
        raise UserError("; ".join(empty))
    values = parser.instantiate(settings)
    config = Config(**{name: values[name] for name in Config.__dataclass_fields__})
    wrong = problems(config)
    if wrong:
        several = "the settings do not fit:\n  " + "\n  ".join(wrong)
        raise UserError(wrong[0] if len(wrong) == 1 else several)
    return config, settings


def _empty(kind: type, settings: Any, prefix: str = "") -> Iterator[str]:
    """Keys that are null and must not be, which the parser takes for keys that nobody set."""
    if not is_dataclass(kind):
        return
    hints = get_type_hints(kind)
    for name in (field.name for field in fields(kind) if field.name in settings):
        value, hint = settings[name], hints[name]
        if value is None and NoneType not in get_args(hint):
            yield prefix + name
        elif isinstance(value, Namespace) and "class_path" in value:
            module, _, plugin = value.class_path.rpartition(".")
            chosen = getattr(import_module(module), plugin)
            yield from _empty(chosen, value.get("init_args") or {}, f"{prefix}{name}.")
        elif isinstance(value, Namespace):
            yield from _empty(hint, value, f"{prefix}{name}.")


def parse(parser: ArgumentParser, argv: Sequence[str] | None) -> tuple[Config, Namespace]:
    """`read` for an entry point.

    Raises:
        SystemExit: With code 2 and one line (a line per problem) on standard error.
    """
    try:
        return read(parser, argv)
    except UserError as error:
        fail(str(error))


def invocation(parser: ArgumentParser, argv: Sequence[str]) -> Invocation:
    """Everything that `fedpl.runs.experiment.run` needs of a command line.

    Raises:
        UserError: As `read`.
    """
    config, settings = read(parser, argv)
    settings.pop("config", None)
    settings.run_dir = None
    return Invocation(config, settings.as_dict(), parser.dump(settings, skip_unset=False))


def split_options(
    program: str,
    description: str,
    add: Callable[[argparse.ArgumentParser], object],
    argv: Sequence[str],
) -> tuple[argparse.Namespace, list[str]]:
    """The options of an entry point's own, and the rest, which sets up runs.

    Args:
        program: How the entry point is called.
        description: What it does.
        add: Adds its options to a parser.
        argv: The command line; ``--help`` in it prints the own options and exits.

    Raises:
        UserError: If an own option is absent or has a wrong value.
    """
    options = _Options(
        prog=program,
        description=description,
        epilog="All options of python -m fedpl.fit are taken too; its --help explains them.",
        allow_abbrev=False,
    )
    add(options)
    return options.parse_known_args(argv)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run an entry point: mistakes of the user's end in one line, an interrupt without a traceback."""
    try:
        code = main()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    raise SystemExit(code)


def _suggestion(message: str, parser: ArgumentParser) -> str:
    """Name the unknown key of a message and the valid ones nearest to it, else nothing."""
    for pattern in _UNKNOWN:
        match = re.search(pattern, message)
        if match:
            break
    else:
        return ""
    wrong = ".".join(match.groups())
    near = get_close_matches(wrong, _known(parser), n=1, cutoff=0.6)
    # A key is more often misspelt in its last part than put in the wrong place.
    near = near or get_close_matches(wrong.rsplit(".")[-1], _known(parser), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _known(parser: ArgumentParser) -> list[str]:
    """Dotted keys, the settings of every pluggable class, and the names of these classes."""
    keys = [action.dest for action in parser._actions if action.dest not in ("help", "print_config")]
    plugins = [cls for base in (Source, Objective, Similarity, Weighting) for cls in base.__subclasses__()]
    names = [name for cls in plugins for name in getattr(cls, "__dataclass_fields__", {})]
    paths = [f"{cls.__module__.rsplit('.', 1)[0]}.{cls.__name__}" for cls in plugins]
    return [*keys, *names, *paths, *(cls.__name__ for cls in plugins)]
