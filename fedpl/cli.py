"""The command line: YAML files and dotted overrides, checked before anything heavy is imported."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from fedpl.completion import answer, asked, complete_settings, completed, configurations, methods
from fedpl.config import Config, labelled
from fedpl.endings import fail
from fedpl.errors import UserError
from fedpl.presets import file, preset, read_yaml
from fedpl.problems import check
from fedpl.settings import Tree, plain
from fedpl.signpost import Help
from fedpl.suggestions import suggestion, whole


class _Refused(SystemExit):
    """A command line that does not parse. No `Exception`: jsonargparse would take it for one of its own."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class _Parser(ArgumentParser):
    """Errors in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise _Refused(" ".join(str(message).split()))


class _Help(Help, DefaultHelpFormatter):
    """jsonargparse's, with the description as it is written."""


class Options(argparse.ArgumentParser):
    """The options of one entry point; what is wrong with them is said in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def parse_args(self, *given: Any, **named: Any) -> Any:
        answer(self)
        return super().parse_args(*given, **named)


def make_parser(program: str, description: str) -> ArgumentParser:
    """A parser whose keys are the fields of `Config`."""
    set_parsing_settings(docstring_parse_attribute_docstrings=False)
    parser = _Parser(
        prog=program,
        usage=f"{program} [--config FILE] [--method NAME] [--KEY VALUE ...]",
        description=description,
        formatter_class=_Help,
        default_env=False,
    )
    config = parser.add_argument(
        "--config",
        action="config",
        help="YAML file, or the name of one that ships (debug, experiment/partial). Of several later ones "
        "win.",
    )
    method = parser.add_argument(
        "--method",
        help="A method by its name (fedbip_l, ditto, ...), as --list_methods lists them, or its YAML file. "
        "Sets client.objective, aggregator and name, over files named by --config and under other options.",
    )
    completed(config, configurations)
    completed(method, methods)
    parser.add_class_arguments(Config, nested_key=None)
    if asked():
        complete_settings(parser)
    return parser


def read(
    parser: ArgumentParser, argv: Sequence[str], base: Config | None = None, method: str | None = None
) -> Config:
    """The configuration of a command line, checked.

    Args:
        parser: From `make_parser`.
        argv: The words: configuration files and dotted overrides.
        base: Settings below all of them.
        method: A method by its name, as from ``--method``.

    Raises:
        UserError: If the command line does not parse or its settings do not fit.
    """
    try:
        settings = parser.parse_args(_layered(argv, base, method))
    except _Refused as refused:
        text = whole(refused.message, argv)
        raise UserError(text + suggestion(text, parser)) from None
    empty = [f"{key}: expected a value, got null" for key in _empty(Config, settings)]
    if empty:
        raise UserError("; ".join(empty))
    values = parser.instantiate(settings)
    config = Config(**{name: values[name] for name in Config.__dataclass_fields__})
    check(config, begun=base is not None)
    return config


def _layered(argv: Sequence[str], base: Config | None, method: str | None) -> list[str]:
    """Words that set the same by files alone: presets become files, each below what wins over it.

    Other options win over files wherever they stand: who names both means what he writes out.
    """
    files: list[str] = [] if base is None else [_inline(plain(base))]
    words: list[str] = []
    follows = ""
    for word in argv:
        option, equals, value = word.partition("=")
        if follows or (equals and option in ("--config", "--method")):
            option, value, follows = follows or option, value if not follows else word, ""
            if option == "--method":
                method = method or value
            else:
                files += _file(value)
        elif word in ("--config", "--method"):
            follows = word
        else:
            words.append(word)
    words += [follows] if follows else []
    chosen = [] if method is None else [_inline(preset(method).settings)]
    return [*files, *chosen, *words]


def _file(name: str) -> list[str]:
    """A configuration file, above the method that it names."""
    tree = labelled(read_yaml(file(name)))
    below = [_inline(preset(str(tree.pop("method"))).settings)] if "method" in tree else []
    return [*below, _inline(tree)]


def _inline(tree: Tree) -> str:
    return f"--config={yaml.safe_dump(tree)}"


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
            (own,) = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and is_dataclass(one)]
            yield from _empty(own, value, f"{prefix}{name}.")


def parse(parser: ArgumentParser, argv: Sequence[str], base: Config | None = None) -> Config:
    """`read` for an entry point.

    Raises:
        SystemExit: With code 2 and one line (a line per problem) on standard error.
    """
    try:
        return read(parser, argv, base)
    except UserError as error:
        fail(str(error))


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
    if asked():  # what the shell completes is both kinds of options
        whole = make_parser(program, description)
        add(whole)
        whole.parse_args([])  # jsonargparse answers in its own way, and ends
    options = Options(
        prog=program,
        description=description,
        epilog="All options of python -m fedpl.fit are taken too; its --help explains them.",
        allow_abbrev=False,
    )
    add(options)
    return options.parse_known_args(argv)


def add_import(parser: argparse.ArgumentParser) -> None:
    """The option that gets modules imported; see `import_named`."""
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this module of yours first: the classes that a run directory names are taken from fedpl "
        "and from modules named so, others are refused; give it once for each",
    )


def add_whose(parser: argparse.ArgumentParser) -> None:
    """The options that say which of a client's models, and on which frozen one."""
    parser.add_argument(
        "--personal", action="store_true", help="the model that the client keeps beside its aggregate"
    )
    parser.add_argument(
        "--newcomer", action="store_true", help="of a client that joined the finished run (fedpl.onboard)"
    )
    parser.add_argument(
        "--model",
        choices=("aggregated", "best"),
        default="aggregated",
        help="best: what the client chose by its validation data, in a run with client.guard: validation",
    )
    parser.add_argument("--base", help="where the frozen model lies now, if not where it did")


def import_named(modules: Sequence[str]) -> None:
    """Import what the user names.

    Raises:
        UserError: If there is no such module.
    """
    for name in modules:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(f"--import: {error}; its folder has to be in PYTHONPATH") from error
