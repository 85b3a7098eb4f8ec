"""Many objects with the same keys as one object of lists: each key stands once."""

from collections.abc import Sequence
from typing import Any

_ROWS = "@rows"  # which of the rows have an object at all, where some have none


def columns(values: Sequence[Any]) -> Any:
    """A list for each key of plain objects, objects inside them likewise; other values stay a list.

    Objects that are absent or null leave no trace but in ``@rows``, the numbers of the rows that have one.
    """
    there = [i for i, value in enumerate(values) if value is not None]
    objects = [values[i] for i in there]
    if not objects or not all(isinstance(one, dict) for one in objects):
        return list(values)
    keys = list(dict.fromkeys(key for one in objects for key in one))
    if not all(_has_column(key, objects) for key in keys):
        return list(values)
    found = {key: columns([one.get(key) for one in objects]) for key in keys}
    return found if len(there) == len(values) else {_ROWS: there, **found}


def _has_column(key: str, objects: Sequence[dict[str, Any]]) -> bool:
    """Whether all have a key, or all that have it have an object there: then its absence is told."""
    own = [one[key] for one in objects if key in one]
    return len(own) == len(objects) or all(isinstance(value, dict) for value in own)


def rows(table: Any, number: int) -> list[Any]:
    """The objects that `columns` was given.

    Args:
        table: What it gave.
        number: How many there were.

    Raises:
        ValueError: If a column has another number of values.
    """
    if not isinstance(table, dict):
        if not isinstance(table, list) or len(table) != number:
            raise ValueError(f"got {len(table) if isinstance(table, list) else table!r} for {number} rows")
        return table
    there = table.get(_ROWS, range(number))
    parts = {key: rows(column, len(there)) for key, column in table.items() if key != _ROWS}
    found: list[Any] = [None] * number
    for place, i in enumerate(there):
        found[i] = {key: column[place] for key, column in parts.items()}
    return found
