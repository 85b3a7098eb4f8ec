"""What a command says on the terminal: everything, only what is wrong, or one line for programs; tables."""

import argparse
import json
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedpl.deferred import deferred

if TYPE_CHECKING:
    from rich import cells, console, table
else:
    cells, console, table = map(deferred, ("rich.cells", "rich.console", "rich.table"))

_NAME, _LONG = 20, 36  # characters to which names may be cut, and from which on they are


def add_output(parser: argparse.ArgumentParser) -> None:
    """The options about what is printed."""
    parser.add_argument(
        "--quiet", action="store_true", help="Print nothing but what is wrong, and what --json prints."
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="Print one line of JSON about the result on standard output, and all else on standard error.",
    )


def console_of(options: argparse.Namespace) -> "console.Console":
    """Where a command prints for people."""
    return console.Console(quiet=options.quiet, stderr=options.json)


def print_json(found: Mapping[str, Any]) -> None:
    """The line for programs."""
    print(json.dumps(dict(found), allow_nan=False), flush=True)


def print_table(terminal: "console.Console", whole: "table.Table") -> None:
    """Print a table without breaking a number or a word of a head, however narrow the terminal is.

    Heads fold between words. Columns for which there is no room follow in further tables, behind the first
    column again.

    Args:
        terminal: Where to print.
        whole: The table. Numbers stand in the columns that are justified to the right.
    """
    seam = 2 if whole.collapse_padding else 3  # characters around a column: a line, a space on both sides
    room, (least, most) = terminal.width - 1, zip(*map(_widths, whole.columns), strict=True)
    parts: list[list[int]] = [[0]]
    for place in range(1, len(whole.columns)):
        if len(parts[-1]) > 1 and sum(least[one] + seam for one in (*parts[-1], place)) > room:
            parts.append([0])
        parts[-1].append(place)
    for part in parts:
        shown, spare = copy(whole), room - sum(least[place] + seam for place in part)
        shown.columns = []
        for place in part:
            column, more = whole.columns[place], most[place] - least[place]
            if more > spare:  # a head that has to fold anyway folds between all its words
                more = 0 if column.justify == "right" else max(spare, 0)
            spare -= more
            shown.columns.append(replace(column, width=least[place] + more, _index=len(shown.columns)))
        shown.title = whole.title if part is parts[0] else None
        shown.caption = whole.caption if part is parts[-1] else None
        terminal.print(shown)


def _widths(column: "table.Column") -> tuple[int, int]:
    """How many characters a column needs, and how many it would fill."""
    head, body = str(column.header), [str(cell) for cell in column.cells]
    if column.justify == "right":
        needs = max(map(cells.cell_len, (*head.split(), *body)), default=1)
    else:
        needs = min(max(map(cells.cell_len, " ".join((head, *body)).split()), default=1), _NAME)
    return max(needs, 1), max(needs, 1, *(min(cells.cell_len(one), _LONG) for one in (head, *body)))
