"""What columns and cells of a table have to be, and a cell as a word."""

import math
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

from fedpl.data.reading import SEPARATORS, Table
from fedpl.data.wording import readable, some
from fedpl.errors import UserError

# Spaces, control characters, and marks without a width: a cell of nothing else is empty to who looks at it.
_UNSEEN = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))


def check_columns(table: Table, wanted: Sequence[str], separator: str | None = None) -> None:
    """Refuse a table that lacks a column.

    Args:
        table: The table.
        wanted: Columns in use.
        separator: What stood between columns, where something did.

    Raises:
        UserError: Naming those there are.
    """
    absent = [name for name in wanted if name not in table.columns]
    if not absent:
        twice = [name for name in wanted if table.columns.count(name) > 1]
        if twice:
            raise UserError(f"{table.path}: has more than one column {some(twice)}; rename all but one")
        return
    alone = table.columns[0] if len(table.columns) == 1 else ""
    others = [shown for other, shown in SEPARATORS.items() if separator and other in alone]
    hint = f"are its columns separated by another character? --data.separator {others[0]}" if others else ""
    made_up = ", or make clients up with data.partition" if "client" in absent else ""
    raise UserError(
        f"{table.path}: no column {', '.join(repr(name) for name in absent)}; it has "
        f"{', '.join(map(_shown, table.columns))}; {hint or f'name yours with data.columns{made_up}'}"
    )


def check_cells(table: Table, wanted: Sequence[str], lists: Collection[str] = ()) -> None:
    """Refuse cells without a value, and values that are several.

    Args:
        table: The table.
        wanted: Columns in use.
        lists: Those whose values may be lists.

    Raises:
        UserError: Naming line and column of the first, and how many there are.
    """
    empty = [(i, name) for i, row in enumerate(table.rows) for name in wanted if _empty(row.get(name))]
    if empty:
        first, name = empty[0]
        more = f", the first of {len(empty)} such cells" if len(empty) > 1 else ""
        raise UserError(f"{table.at(first)} has an empty {name!r}{more}; fill it in, or leave the row out")
    for i, row in enumerate(table.rows):
        for name in wanted:
            if name in lists:
                continue
            if isinstance(row[name], list | tuple | dict | set | bytes):
                kind = type(row[name]).__name__  # never what is in it: it may be somebody's words
                several = "; several classes for one row (multi-label) are not done" if kind == "list" else ""
                raise UserError(f"{table.at(i)}: {name!r} holds a {kind}, expected text or a number{several}")


def word(value: Any) -> str:
    """A value as text; a whole number is the same however it was written (1 and 1.0)."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _shown(name: str) -> str:
    """A column's name; in quotation marks where spaces belong to it, which nobody would see."""
    return f"'{readable(name)}'" if name != name.strip() else readable(name)


def _empty(value: Any) -> bool:
    if isinstance(value, str):
        return all(unicodedata.category(char) in _UNSEEN for char in value)
    return value is None or (isinstance(value, float) and math.isnan(value))
