"""What a run says about the run with whose models it began."""

from dataclasses import dataclass
from typing import ClassVar

from fedpl.records.plain import Matrix, optional
from fedpl.records.record import Kept


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The run with whose models another one began.

    Attributes:
        run: Its directory, as it was named.
        method: Its method.
        rounds: After how many rounds.
        digest: Of the models that the clients began with, and of θ₀.
        epsilon: ε of all that it and those before it released; absent where nothing was private.
    """

    run: str
    method: str
    rounds: int
    digest: str
    epsilon: float | None = optional()

    def __str__(self) -> str:
        return f"{self.run} ({self.method}, after round {self.rounds})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Holding(Kept):
    """Whose updates are in the models that a run began with.

    Attributes:
        clients: Who sent any: the columns.
        given: How many task vectors of the column's client, in whole or in part; a row for each client of the
            run, the last one for clients that the earlier run did not have.
    """

    FILE: ClassVar[str] = "holding.json"
    SEALED: ClassVar[bool] = True

    clients: tuple[str, ...]
    given: Matrix
