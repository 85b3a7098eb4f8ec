"""Sites that several workers serve: groups train at once, what is lost with a worker is done again."""

import logging
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.executors.crew import Crew, Done, Lost, Order, Raised, Reply
from fedpl.executors.protocol import GoOn
from fedpl.interop import cloned
from fedpl.records.messages import (
    Answer,
    Begin,
    Census,
    Choose,
    Company,
    Deliver,
    Failure,
    Frozen,
    Notice,
    Report,
    Work,
)
from fedpl.records.scores import Scores

_log = logging.getLogger(__name__)
_FORGOTTEN, _REMINDER = 0, -1  # tickets for whose replies nobody waits


class _Task(NamedTuple):
    """An order that has not been answered.

    Attributes:
        ticket: Its number.
        order: What is asked.
        worker: Who has to do it; None: whoever is free.
        losses: How often it was lost with its worker.
        begun: When it was given to a worker.
    """

    ticket: int
    order: Order
    worker: int | None
    losses: int = 0
    begun: float = 0.0


class Fleet:
    """All workers can serve every client; see `fedpl.executors.protocol.Executor`.

    A worker that was started again is told what the one before had been told: it is a new one like the first.
    What a client remembers lies in the run's folder, where every worker finds it.

    Args:
        crew: The workers.
        retries: How often work is given to another worker when it was lost with its own.
        timeout: Seconds after which a worker that has not answered is taken for dead; None waits.
    """

    def __init__(self, crew: Crew, retries: int = 2, timeout: float | None = None) -> None:
        self._crew = crew
        self._retries = retries
        self._timeout = timeout
        self._tickets = 0
        self._waiting: deque[_Task] = deque()
        self._under_way: dict[int, _Task] = {}
        self._replies: dict[int, Done | Raised] = {}
        self._told: dict[type, Notice] = {}
        self._capacity: Mapping[str, int] = {}
        self._census: Census | None = None
        self.close = weakref.finalize(self, crew.close)
        for worker in range(crew.size):
            crew.start(worker)

    def join(self) -> Census:
        if self._census is None:
            first, *others = self._all("join")
            for number, other in enumerate(others, 1):
                _compare(first, other, number)
            self._census = first
        return self._census

    def ask(self, question: str) -> Any:
        """What the first worker says of itself beside the verbs of an executor."""
        return self._answer(self._submit(Order(question), 0))

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        if capacity:
            self._capacity = capacity
        asked = [each._replace(received=each.received[:0]) for each in work]  # numbers decide nothing
        company: Company = self._answer(self._submit(Order("plan", (asked, self._capacity or None)), 0))
        self._capacity = self._capacity or company.capacity
        share = -(-len(work) // self._crew.size)
        if share and self._capacity.get("size", 1) > share:  # a cohort for each worker
            smaller = {**self._capacity, "size": share}
            company = self._answer(self._submit(Order("plan", (asked, smaller)), 0))
        return company

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Float[Any, "params"]] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        left = deque(company.shared_out(work))
        under_way: dict[int, list[Work]] = {}
        try:
            while left or under_way:
                while left and len(under_way) < self._crew.size:
                    if go_on is not None and not go_on():
                        left.clear()
                        break
                    group = left.popleft()
                    names = tuple(each.client for each in group)
                    alone = Company((names,), company.capacity)
                    under_way[self._submit(Order("train", (group, alone)))] = group
                if under_way:
                    ticket = self._wait(under_way)
                    yield from self._delivered(ticket, under_way.pop(ticket), into)
        finally:
            self._forget(under_way)

    def score(
        self, clients: Sequence[str], models: Float[Any, "clients params"], split: str
    ) -> Mapping[str, Scores]:
        share = max(-(-len(clients) // self._crew.size), 1)
        size = min(self._capacity.get("size", share), share)
        parts = [slice(start, start + size) for start in range(0, len(clients), size)]
        tickets = [self._submit(Order("score", (clients[part], models[part], split))) for part in parts]
        found: dict[str, Scores] = {}
        for ticket in tickets:
            found |= self._answer(ticket)
        return found

    def tell(self, notice: Notice) -> None:
        if isinstance(notice, Deliver | Choose):  # it writes files: once
            self._answer(self._submit(Order("tell", (notice,))))
            return
        self._told[type(notice)] = notice
        if isinstance(notice, Frozen) and notice.residual is not None:
            self._told[type(notice)] = notice._replace(residual=cloned(notice.residual))
        self._all("tell", notice)

    def _delivered(
        self, ticket: int, group: Sequence[Work], into: Mapping[str, Float[Any, "params"]] | None
    ) -> Iterator[Answer]:
        """A group's answers, their task vectors where they belong before the worker does anything else."""
        clients = tuple(each.client for each in group)
        reply = self._replies.pop(ticket)
        if isinstance(reply, Raised):
            if isinstance(reply.error, UserError):
                raise reply.error
            yield Failure(clients, f"its training failed: {reply.error}", reply.error, group[0].attempt)
            return
        answers: list[Answer] = []
        for answer in reply.value:
            if isinstance(answer, Report):
                row = None if into is None else into.get(answer.client)
                if row is not None:  # else nobody gave a place, or nobody asked this client
                    row[:] = answer.vector
                    answer = answer._replace(vector=row)
            answers.append(answer)
        yield from answers

    def _all(self, verb: str, *arguments: Any) -> list[Any]:
        """What every worker says."""
        tickets = [self._submit(Order(verb, arguments), worker) for worker in range(self._crew.size)]
        return [self._answer(ticket) for ticket in tickets]

    def _answer(self, ticket: int) -> Any:
        """What came of an order.

        Raises:
            BaseException: What it ended with.
        """
        self._wait({ticket: None})
        reply = self._replies.pop(ticket)
        if isinstance(reply, Raised):
            raise reply.error
        return reply.value

    def _submit(self, order: Order, worker: int | None = None) -> int:
        self._tickets += 1
        self._waiting.append(_Task(self._tickets, order, worker))
        self._hand_out()
        return self._tickets

    def _hand_out(self) -> None:
        """Give orders to those who have none, in the order in which they were asked."""
        for task in tuple(self._waiting):
            free = (worker for worker in range(self._crew.size) if worker not in self._under_way)
            chosen = next((w for w in free if task.worker in (None, w)), None)
            if chosen is not None:
                self._waiting.remove(task)
                self._under_way[chosen] = task._replace(begun=time.monotonic())
                self._crew.send(chosen, task.order)

    def _wait(self, tickets: Mapping[int, Any]) -> int:
        """The next of these orders that is answered; other replies that come in the meantime are kept."""
        while True:
            for ticket in tickets:
                if ticket in self._replies:
                    return ticket
            self._hear()
            self._hand_out()

    def _hear(self) -> None:
        """Take the next reply, or find out that there is going to be none."""
        patience = None
        if self._timeout is not None:
            begun = min(task.begun for task in self._under_way.values())
            patience = max(begun + self._timeout - time.monotonic(), 0.0)
        found = self._crew.next(patience)
        if found is not None:
            self._take(*found)
            return
        for worker, task in tuple(self._under_way.items()):
            if self._timeout is not None and time.monotonic() - task.begun >= self._timeout:
                self._take(worker, Lost(f"it had not answered after {self._timeout:g} s"))

    def _take(self, worker: int, reply: Reply) -> None:
        task = self._under_way.pop(worker, None)
        if not isinstance(reply, Lost):
            if task is not None:
                self._keep(task, reply)
            return
        _log.warning("worker %d is gone: %s; it is started again", worker, reply.reason)
        self._crew.start(worker)
        losses = 0
        if task is not None and task.losses >= self._retries:
            lost = RuntimeError(f"lost with its worker {task.losses + 1} times: {reply.reason}")
            self._keep(task, Raised(lost))
        elif task is not None and task.ticket > 0:
            self._waiting.appendleft(task._replace(losses=task.losses + 1))
        elif task is not None:
            losses = task.losses + 1
        self._waiting = deque(one for one in self._waiting if (one.ticket, one.worker) != (_REMINDER, worker))
        for kind in (Frozen, Begin):  # a new worker hears what holds before anything else
            if kind in self._told:
                told = Order("tell", (self._told[kind],))
                self._waiting.appendleft(_Task(_REMINDER, told, worker, losses))

    def _keep(self, task: _Task, reply: Done | Raised) -> None:
        if task.ticket == _REMINDER and isinstance(reply, Raised):
            raise reply.error
        if task.ticket > 0:
            self._replies[task.ticket] = reply

    def _forget(self, tickets: Mapping[int, Any]) -> None:
        """Nobody waits for these any more; who is at it ends it first."""
        self._waiting = deque(task for task in self._waiting if task.ticket not in tickets)
        for worker, task in self._under_way.items():
            if task.ticket in tickets:
                self._under_way[worker] = task._replace(ticket=_FORGOTTEN)
        for ticket in tickets:
            self._replies.pop(ticket, None)


def _compare(first: Census, other: Census, number: int) -> None:
    """Refuse workers that do not serve the same.

    Raises:
        UserError: Naming what differs.
    """
    origins = tuple(zip(first.members, other.members, strict=False))
    differing = [one.client for one, two in origins if one != two]
    if len(first.members) != len(other.members) or differing:
        who = f"client '{differing[0]}'" if differing else f"{len(other.members)} clients"
        raise UserError(
            f"executor: worker {number} has other data than worker 0 ({who}); give all workers the same files"
        )
    if first.layout != other.layout or not np.array_equal(first.initial, other.initial):
        raise UserError(
            f"executor: worker {number} starts from another model than worker 0; give all workers the same"
        )
