"""Workers that are somewhere else, as a fleet sees them: orders go out, replies come in."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Order(NamedTuple):
    """A verb of `fedpl.executors.protocol.Executor`, or another question, with what goes with it."""

    verb: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Done:
    """What came of an order."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """An order ended with an error; the worker goes on."""

    error: BaseException


@dataclass(frozen=True)
class Lost:
    """The worker is gone, and whatever it was doing with it."""

    reason: str


Reply = Done | Raised | Lost


@runtime_checkable
class Crew(Protocol):
    """Workers by number, each of which does one order at a time.

    Attributes:
        size: How many.
    """

    size: int

    def start(self, worker: int) -> None:
        """Start a worker; if there is one of this number, it ends, and its reply never comes."""
        ...

    def send(self, worker: int, order: Order) -> None:
        """Give an order to a worker that has none."""
        ...

    def next(self, timeout: float | None) -> tuple[int, Reply] | None:
        """The next reply of any worker, and whose; None when none has come in so many seconds."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...
