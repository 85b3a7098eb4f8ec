"""What the search and whoever runs a trial tell each other."""

from typing import NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Judge(Protocol):
    """Decides from round to round whether a trial goes on."""

    def report(self, round: int, value: float) -> None:
        """Take a round's score."""
        ...

    def cut(self) -> bool:
        """Whether to stop here."""
        ...


class Outcome(NamedTuple):
    """How a trial ended.

    Attributes:
        state: complete, pruned or failed.
        value: The metric after the last round; None if there is none.
        rounds: Rounds done.
        seconds: Time taken.
        message: Why it failed, else empty.
    """

    state: str
    value: float | None
    rounds: int
    seconds: float
    message: str = ""
