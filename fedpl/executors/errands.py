"""Orders to sites: sent again while they are lost, given up in the end; each site has one at a time."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fedpl.errors import UserError
from fedpl.executors.crew import Crew, Done, Lost, Order, Raised
from fedpl.executors.letters import Untold
from fedpl.executors.protocol import GoOn

_log = logging.getLogger(__name__)
_PAUSE, _LONGEST = 5.0, 60.0  # seconds before what was lost is sent again: twice as long each time
_PATIENCE = 2  # how often a site is told what holds, and says that it was not, until it is given up
ODD = Raised(UserError("it sent something else than an answer"))


class Errand(NamedTuple):
    """An order that a site has not answered.

    Attributes:
        place: In what was asked.
        begun: When it was first sent; None: not yet.
        due: When it may be sent; infinite: it has been.
        losses: How often it, or its answer, was lost.
        untold: How often the site said that it does not hold what it needs.
    """

    place: int
    begun: float | None = None
    due: float = 0.0
    losses: int = 0
    untold: int = 0


class Errands:
    """Runs errands to the workers of a crew.

    Args:
        crew: The sites.
        letter: Words an order to a worker, with whatever the worker has to be told first.
        forget: Called with a worker that does not hold what it had been told.
        name: What a worker is called.
        retries: How often an order is sent again that was lost on the way or with its site.
        timeout: Seconds within which a site has to answer an order, however often it is sent; None waits.
    """

    def __init__(
        self,
        crew: Crew,
        letter: Callable[[int, Order], Order],
        forget: Callable[[int], None],
        name: Callable[[int], str],
        retries: int,
        timeout: float | None,
    ) -> None:
        self._crew = crew
        self._letter = letter
        self._forget = forget
        self._name = name
        self._retries = retries
        self._timeout = timeout

    def answers(
        self, asked: Sequence[tuple[int, Order]], go_on: GoOn | None = None
    ) -> Iterator[tuple[int, Done | Raised | Lost]]:
        """What comes of orders, by their place, as it comes.

        Args:
            asked: Workers and their orders.
            go_on: Asked before each order: whether any may be sent; None: all.
        """
        waiting: dict[int, deque[Errand]] = {}
        for place, (worker, _) in enumerate(asked):
            waiting.setdefault(worker, deque()).append(Errand(place))
        open_: dict[int, Errand] = {}
        try:
            while waiting or open_:
                for worker in [one for one in waiting if one not in open_]:
                    if go_on is not None and not go_on():
                        waiting.clear()
                        break
                    open_[worker] = waiting[worker].popleft()
                    if not waiting[worker]:
                        del waiting[worker]
                for worker, errand in open_.items():
                    if errand.due <= time.monotonic():
                        self._crew.send(worker, self._letter(worker, asked[errand.place][1]))
                        begun = time.monotonic() if errand.begun is None else errand.begun
                        open_[worker] = errand._replace(begun=begun, due=float("inf"))
                for worker, reply in self._heard(open_):
                    errand = open_.pop(worker)
                    again = self._again(worker, errand, reply)
                    if again is None:
                        yield errand.place, reply if isinstance(reply, Done | Raised | Lost) else ODD
                    else:
                        open_[worker] = again
        finally:
            for worker in open_:  # what comes of it now is nobody's answer
                self._crew.start(worker)

    def _heard(self, open_: Mapping[int, Errand]) -> list[tuple[int, Any]]:
        """Replies to open errands, or the news that there is going to be none."""
        if not open_:
            return []
        ends = {worker: self._end(errand) for worker, errand in open_.items()}
        wait = min(*ends.values(), *(errand.due for errand in open_.values())) - time.monotonic()
        found = self._crew.next(None if wait == float("inf") else max(wait, 0.0))
        if found is not None:
            worker, reply = found
            if worker not in open_ or open_[worker].due != float("inf"):
                return []  # it was given up
            return [(worker, reply.value if isinstance(reply, Done) else reply)]
        late = [worker for worker, end in ends.items() if time.monotonic() >= end]
        return [(worker, Lost(f"it had not answered after {self._timeout:g} s")) for worker in late]

    def _end(self, errand: Errand) -> float:
        """When a site is given up."""
        if self._timeout is None or errand.begun is None:
            return float("inf")
        return errand.begun + self._timeout

    def _again(self, worker: int, errand: Errand, reply: Any) -> Errand | None:
        """The errand, if the site is to be asked once more."""
        now = time.monotonic()
        if isinstance(reply, Untold) and errand.untold < _PATIENCE:
            self._forget(worker)
            return errand._replace(due=now, untold=errand.untold + 1)
        if not isinstance(reply, Lost):
            return None
        self._crew.start(worker)
        self._forget(worker)  # what it had been told may have been lost, too
        if now >= self._end(errand) or errand.losses >= self._retries:
            return None
        pause = min(_PAUSE * 2**errand.losses, _LONGEST)
        _log.warning("%s: %s; it is asked again in %g s", self._name(worker), reply.reason, pause)
        return errand._replace(due=now + pause, losses=errand.losses + 1)


def reason(why: Raised | Lost) -> str:
    """Why there is no answer, in words."""
    return why.reason if isinstance(why, Lost) else str(why.error)
