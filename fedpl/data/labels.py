"""Labels that cannot be meant as classes: refused before any work."""

from collections import Counter
from collections.abc import Iterable, Sequence

from fedpl.data.cells import word
from fedpl.data.reading import Table
from fedpl.data.wording import listed, some
from fedpl.errors import UserError

_NULLS = {"null", "nan", "<na>", "#n/a", "#ref!", "#value!", "#name?", "#num!", "#null!", "#div/0!"}
_FEW = 10  # classes, up to which a table with few rows may have as many classes as it likes


def check_labels(tables: Sequence[Table], column: str) -> None:
    """Refuse missing labels that are written as words, and a class for each row.

    Args:
        tables: With full cells.
        column: Of the labels.

    Raises:
        UserError: With what was found and what to do.
    """
    for table in tables:
        for i, row in enumerate(table.rows):
            if word(row[column]).strip().lower() in _NULLS:
                raise UserError(
                    f"{table.at(i)}: {column!r} is '{row[column]}', which stands for no label; leave the row "
                    f"out, or write another word if it is a class"
                )
    times = Counter(word(row[column]) for table in tables for row in table.rows)
    rows = times.total()
    if not rows:
        raise UserError(f"the table has no rows: {', '.join(table.path for table in tables)}")
    if len(times) == rows > 2 or len(times) > max(rows / 2, _FEW):
        where = listed((table.path for table in tables), 2)
        raise UserError(
            f"{where}: {column!r} has {len(times):,} different values in {rows:,} rows, expected a few "
            f"classes; is it another column? --data.columns.label"
        )


def check_classes(tables: Sequence[Table], column: str, known: Sequence[str]) -> None:
    """Refuse labels that are none of the classes.

    Args:
        tables: With full cells.
        column: Of the labels.
        known: The classes.

    Raises:
        UserError: Naming line and label of the first, and the classes.
    """
    for table in tables:
        for i, row in enumerate(table.rows):
            if (label := word(row[column])) not in known:
                raise UserError(
                    f"{table.at(i)}: {column!r} is {some([label])}, which is none of the run's classes "
                    f"({some(known)}); mend the label, or start a new run for other classes"
                )


def check_declared(rows: Iterable[tuple[str, str]], tables: Sequence[Table], column: str) -> None:
    """Refuse classes that no client is trained on.

    Args:
        rows: Declared split and label of each.
        tables: Where they stand.
        column: Of the labels.

    Raises:
        UserError: Naming them.
    """
    labels: dict[str, set[str]] = {}
    for split, label in rows:
        labels.setdefault(split, set()).add(label)
    train = labels.pop("train", set())
    others = set().union(*labels.values()) - train
    if others:
        places = (
            table.at(i) for table in tables for i, row in enumerate(table.rows) if word(row[column]) in others
        )
        raise UserError(
            f"labels that stand in no train row, only in validation or test rows: {some(sorted(others))}, "
            f"the first in {next(places)}, {column!r}; expected every class in training; mend the labels or "
            f"the split column"
        )
