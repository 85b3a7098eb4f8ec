"""The clients' aggregates between two rounds: each distinct one once, and whose it is.

An average is one row for all clients, a cluster's model one for its members, and who was never drawn shares
θ₀. Rows lie in parts, one for each round that made some: what a round does not change is not touched.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Staying(NamedTuple):
    """Rows of a part, most of which nobody has any more: those that are left go into the next part.

    Attributes:
        part: The round that made it.
        rows: Which rows are left.
    """

    part: int
    rows: Int[np.ndarray, "left"]


@dataclass(frozen=True, eq=False)
class Models:
    """Aggregates θ̄ᵢ of all clients; `numpy.asarray` makes the whole matrix of them.

    Attributes:
        parts: Rows [models, params] by the round that made them, 0 for θ₀: JAX arrays, or NumPy arrays of
            files where they lie on disk.
        made: Which part holds a client's row.
        row: Its place there.
    """

    parts: Mapping[int, Any]
    made: Int[np.ndarray, "clients"]
    row: Int[np.ndarray, "clients"]

    @classmethod
    def start(cls, rows: Any, clients: int) -> "Models":
        """All clients have the same.

        Args:
            rows: It, as a matrix of one row.
            clients: Number of clients.
        """
        return cls({0: rows}, np.zeros(clients, np.int32), np.zeros(clients, np.int32))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.made), next(iter(self.parts.values())).shape[1]

    def __len__(self) -> int:
        return len(self.made)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Float[np.ndarray, "clients params"]:
        if copy is False:
            raise ValueError("the aggregates are no matrix as they are: let it be made")
        hosts = {made: np.asarray(part) for made, part in self.parts.items()}
        whole = np.empty(self.shape, np.float32)
        for target, made, row in zip(whole, self.made, self.row, strict=True):
            target[:] = hosts[made][row]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    @property
    def whole(self) -> Any | None:
        """The one part where it is the matrix of all clients; else None."""
        if len(self.parts) > 1:
            return None
        (part,) = self.parts.values()
        own = len(part) == len(self) and np.array_equal(self.row, np.arange(len(self)))
        return part if own else None

    def staying(self, clients: Sequence[int]) -> list[Staying]:
        """What is left of parts that will be at most half in use once these clients have other rows."""
        others = np.ones(len(self), bool)
        others[list(clients)] = False
        found = []
        for part, rows in self.parts.items():
            left = np.unique(self.row[others & (self.made == part)])
            if len(left) and 2 * len(left) <= len(rows):
                found.append(Staying(part, left))
        return found

    def after(
        self,
        round: int,
        rows: Any,
        clients: Sequence[int],
        places: Int[np.ndarray, "changed"],
        staying: Sequence[Staying] = (),
    ) -> "Models":
        """The aggregates after a round.

        Args:
            round: Its number.
            rows: The part that it made.
            clients: Who has another row now.
            places: Which one, client by client.
            staying: What stands at the part's end, see `staying`.
        """
        made, row = self.made.copy(), self.row.copy()
        begin = len(rows) - sum(len(left.rows) for left in staying)
        for left in staying:
            own = self.made == left.part
            own[list(clients)] = False
            made[own], row[own] = round, begin + np.searchsorted(left.rows, self.row[own])
            begin += len(left.rows)
        made[list(clients)], row[list(clients)] = round, places
        used = set(np.unique(made).tolist())
        parts = {part: old for part, old in self.parts.items() if part in used}
        return Models({**parts, round: rows}, made, row)


def distinct(
    matrix: Float[np.ndarray, "rows params"], settle: Callable[[], None] = lambda: None
) -> tuple[Int[np.ndarray, "kept"] | None, np.ndarray]:
    """Which rows of a matrix are worth keeping, and where each of its rows is then; None: all of them.

    Rows are compared bit by bit. Where more than half differ the matrix stays as it is: its rows that nobody
    has cost less than another matrix would.

    Args:
        matrix: The rows.
        settle: Called after each that has been looked at: on disk it need not stay in memory.
    """
    first = first_equal(matrix, settle)
    kept = np.unique(first)
    if 2 * len(kept) > len(matrix):
        return None, np.arange(len(matrix), dtype=np.int32)
    return kept, np.searchsorted(kept, first).astype(np.int32)


def first_equal(rows: np.ndarray, settle: Callable[[], None] = lambda: None) -> np.ndarray:
    """For each row of a matrix the number of the first one that is the same, bit by bit."""
    rows = np.require(rows, requirements="C")
    bits = rows.view(np.uint8).reshape(len(rows), -1)
    ends = []
    for row in bits:
        ends.append(row[:64].tobytes() + row[-64:].tobytes())
        settle()
    alike = Counter(ends)  # rows of which there is no other with these ends need no digest
    names = []
    for row, end in zip(bits, ends, strict=True):
        many = alike[end] > 1
        names.append(_digest(row) if many else end)
        if many:
            settle()
    first: dict[bytes, int] = {}
    for i, name in enumerate(names):
        first.setdefault(name, i)
    return np.array([first[name] for name in names], np.int32)


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(row.data, digest_size=16).digest()
