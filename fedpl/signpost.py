"""What a user looks for first: the head of the help of ``python -m fedpl.fit``, and the list of methods."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from fedpl.presets import about, names

_WANTED = (
    "method",
    "config",
    "rounds",
    "seed",
    "data",
    "model.path",
    "client.lr",
    "client.epochs",
    "baselines",
    "run_dir",
)
_EXAMPLES = """\
  python -m fedpl.fit --config debug
  python -m fedpl.fit --method fedbip_l --rounds 10 --client.lr 1e-3
  python -m fedpl.fit --config text_files --data.paths '[reviews.csv]' \\
      --data.columns.client site --model.path ./my-model --run_dir runs/mine

--list_methods names the methods, --print_config shows what a command line
amounts to, --data.help TextFiles explains the options of one choice."""


class Help(argparse.RawDescriptionHelpFormatter):
    """To be mixed with a parser's own formatter: the description keeps its lines."""


def head(parser: argparse.ArgumentParser) -> str:
    """The options that are wanted most, each with its default, and three examples.

    Args:
        parser: It has these options.
    """
    actions = {action.dest: action for action in parser._actions}
    lines = [parser.description or "", "", "wanted most (all options are below, by sections):"]
    for key in _WANTED:
        words = _sentence(actions[key].help or "")
        default = actions[key].default
        if isinstance(default, int | float | str | list | tuple):
            words += f" [{', '.join(default) if isinstance(default, list | tuple) else default}]"
        lines.append(_entry(f"  --{key}", words, 18))
    return "\n".join([*lines, "", "examples:", _EXAMPLES])


def methods() -> str:
    """The methods that ship, each with the first sentence of its file."""
    known = names("method")
    return "\n".join(_entry(name, about(name), max(map(len, known)) + 2) for name in known)


def add_list_methods(parser: argparse.ArgumentParser) -> None:
    """The option that prints `methods` and exits."""
    parser.add_argument("--list_methods", action=_ListMethods, help="name the methods that ship, and exit")


class _ListMethods(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **others: Any) -> None:
        others |= {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS, "nargs": 0}
        super().__init__(option_strings, **others)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(methods())
        parser.exit()


def _entry(name: str, words: str, column: int) -> str:
    """A name, and words from this column on, as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns, 110) - 1
    return textwrap.fill(words, width, initial_indent=f"{name:{column}}", subsequent_indent=" " * column)


def _sentence(text: str) -> str:
    return re.split(r"[.;] |[.]$", " ".join(text.split()).replace("``", ""), maxsplit=1)[0]
