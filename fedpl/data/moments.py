"""When a row was: a number, or a date as ISO 8601 writes it."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from fedpl.data.wording import readable
from fedpl.errors import UserError


class Moment(NamedTuple):
    """A place in time.

    Attributes:
        value: Seconds since 1970 of a date, else the number itself.
        dated: Whether it is a date.
        at: Where it stands.
    """

    value: float
    dated: bool
    at: str


def moment(cell: Any, at: str, column: str) -> Moment:
    """What a cell means; dates without a zone are UTC.

    Args:
        cell: A number, a date, or either of them as text.
        at: Where it stands.
        column: Its column.

    Raises:
        UserError: If it is none.
    """
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day)
    try:
        if not isinstance(cell, datetime):
            found = math.nan if isinstance(cell, bool) else float(cell)
            if math.isfinite(found):
                return Moment(found, False, at)
    except ValueError:
        cell = _date(cell)
    if not isinstance(cell, datetime):
        raise UserError(
            f"{at}: {column!r} is '{readable(str(cell), 30)}', expected a number, or a date such as "
            f"2024-05-31 or 2024-05-31T12:00:00"
        )
    return Moment((cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp(), True, at)


def _date(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return text


def refuse_mixed(moments: Sequence[Moment], column: str) -> None:
    """Refuse numbers beside dates, whose order nobody knows.

    Raises:
        UserError: Naming one of each.
    """
    dates, numbers = ([one for one in moments if one.dated is kind] for kind in (True, False))
    if dates and numbers:
        raise UserError(
            f"{numbers[0].at}: {column!r} is a number, and a date in {dates[0].at}; write all in one way"
        )
