"""A table's cells in memory, by column: a dict for each row would take more than all that stands in it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_ABSENT: Any = object()
_WORDS = 65_536  # different texts of a column that are held once each


class Cells(Sequence[dict[str, Any]]):
    """Rows, each of which is made when it is asked for. Equal words of a column, such as labels, are one."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._number = 0
        self._columns: dict[str, list[Any]] = {}
        self._words: dict[str, dict[str, str]] = {}
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it may lack cells, and have some of new columns."""
        for name in row:
            if name not in self._columns:
                self._columns[name], self._words[name] = [_ABSENT] * self._number, {}
        for name, values in self._columns.items():
            value, words = row.get(name, _ABSENT), self._words[name]
            if type(value) is str:
                value = words.setdefault(value, value) if len(words) < _WORDS else words.get(value, value)
            values.append(value)
        self._number += 1

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(self._number))]
        found = ((name, values[row]) for name, values in self._columns.items())
        return {name: value for name, value in found if value is not _ABSENT}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = list(self._columns)
        for _, *cells in zip(range(self._number), *self._columns.values(), strict=True):
            pairs = zip(names, cells, strict=True)
            yield {name: value for name, value in pairs if value is not _ABSENT}
