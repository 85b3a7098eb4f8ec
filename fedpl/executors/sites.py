"""Clients at the sites of other organisations: each has its own, and the server has none of their data."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.executors.crew import Crew, Done, Lost, Order, Raised
from fedpl.executors.distrust import check_report, fits, scores_of
from fedpl.executors.errands import ODD, Errands, reason
from fedpl.executors.joining import Pins, agree, start_digest
from fedpl.executors.letters import Joining, Letter
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
    Work,
)
from fedpl.records.scores import Scores

_log = logging.getLogger(__name__)


class Sites:
    """Each worker of the crew is a site with clients of its own; see `fedpl.executors.protocol.Executor`.

    A site gets one order at a time, all of a round's work for its clients is one. Who does not answer is
    named; no other site is asked in its place, as none has its data.

    Args:
        crew: The sites. They take an order ``letter`` and answer it with Done, Raised or Untold.
        settings: That all sites must have been started with, as YAML.
        shifts: Whether a method of the run changes the frozen weights.
        pins: Whose name and key each site has.
        retries: How often an order is sent again that was lost on the way or with its site.
        timeout: Seconds within which a site has to answer an order, however often it is sent; None waits.
    """

    def __init__(
        self,
        crew: Crew,
        settings: str,
        shifts: bool,
        pins: Pins,
        retries: int = 2,
        timeout: float | None = None,
    ) -> None:
        self._crew = crew
        self._settings = settings
        self._shifts = shifts
        self._pins = pins
        self._errands = Errands(crew, self._letter, self._forget, self._name, retries, timeout)
        self._begin = Begin("")
        self._frozen = Frozen()
        self._told: dict[int, dict[type, Notice]] = {worker: {} for worker in range(crew.size)}
        self._joinings: tuple[Joining, ...] = ()
        self._census: Census | None = None
        self._site_of: dict[str, int] = {}
        for worker in range(crew.size):
            crew.start(worker)

    def join(self) -> Census:
        if self._census is None:
            asked = [(worker, Order("join")) for worker in range(self._crew.size)]
            answers = dict(self._errands.answers(asked))
            joined = tuple(self._joined(worker, answers[worker]) for worker in range(len(asked)))
            for worker, own in enumerate(joined):
                if not fits(own):
                    raise UserError(f"{self._name(worker)} has not joined: {reason(ODD)}")
            self._joinings = joined
            self._pins.check([own.site for own in self._joinings])
            census = agree(self._joinings, self._settings, self._shifts)
            start = self._joined(0, next(self._errands.answers([(0, Order("start"))]))[1], np.ndarray)
            if start_digest(start.tobytes()) != self._joinings[0].start or len(start) != census.layout.size:
                raise UserError(f"site '{self._joinings[0].site}' sent other numbers of θ₀ than it had named")
            self._census = census._replace(initial=start)
            self._site_of = {
                member.client: worker
                for worker, own in enumerate(self._joinings)
                for member in own.census.members
            }
        return self._census

    @property
    def notes(self) -> tuple[str, ...]:
        """Who has joined, for the first lines of a run."""
        self.join()
        sizes = ", ".join(f"{own.site} ({len(own.census.members)})" for own in self._joinings)
        return (f"{self._crew.size} sites with their clients: {sizes}",)

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        groups: dict[int, list[str]] = {}
        for each in work:
            groups.setdefault(self._site_of[each.client], []).append(each.client)
        return Company(tuple(tuple(groups[worker]) for worker in sorted(groups)), {})

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Float[Any, "params"]] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        groups = company.shared_out(work)
        orders = [(self._site_of[own[0].client], Order("train", (tuple(own),))) for own in groups]
        for place, reply in self._errands.answers(orders, go_on):
            yield from self._reported(orders[place][0], groups[place], reply, into)

    def score(
        self, clients: Sequence[str], models: Float[Any, "clients params"], split: str
    ) -> Mapping[str, Scores]:
        rows: dict[int, list[int]] = {}
        for row, client in enumerate(clients):
            rows.setdefault(self._site_of[client], []).append(row)
        owns = {worker: tuple(clients[row] for row in rows[worker]) for worker in sorted(rows)}
        orders = [
            (worker, Order("score", (own, models[rows[worker]], split))) for worker, own in owns.items()
        ]
        scored: dict[str, Scores] = {}
        for place, reply in self._errands.answers(orders):
            worker = orders[place][0]
            known = None
            if isinstance(reply, Done):
                known = scores_of(reply.value, owns[worker], self.join().metrics)
            if known is None:
                why = ODD if isinstance(reply, Done) else reply
                _log.warning("%s is not scored on %s: %s", self._name(worker), split, reason(why))
            scored |= known or {}
        return {client: scored[client] for client in clients if client in scored}

    def tell(self, notice: Notice) -> None:
        """Begin and Frozen go with the next order to each site, so that they cost no message of their own."""
        if isinstance(notice, Deliver):
            self._hand_over(notice, "deliver", "has not got its clients' last aggregates")
        elif isinstance(notice, Choose):
            self._hand_over(notice, "choose", "has not let its clients choose")
        elif isinstance(notice, Begin):
            self._pins.keep([own.site for own in self._joinings])
            self._begin = Begin(notice.run)
        elif isinstance(notice, Frozen):
            residual = None if notice.residual is None else cloned(notice.residual)
            if notice.digest != self._frozen.digest:
                self._frozen = notice._replace(residual=residual)

    def close(self) -> None:
        """Ask no site for anything more."""
        self._crew.close()

    def _hand_over(self, notice: Deliver | Choose, verb: str, otherwise: str) -> None:
        """Each site its clients' part; what comes of it stays there."""
        rows: dict[int, list[int]] = {worker: [] for worker in range(self._crew.size)}
        for row, client in enumerate(notice.clients):
            rows[self._site_of[client]].append(row)
        parts = [notice.among(own)._replace(folder="") for own in rows.values()]
        orders = [(worker, Order(verb, (part, self._pins.run))) for worker, part in enumerate(parts)]
        for place, reply in self._errands.answers(orders):
            if not isinstance(reply, Done):
                _log.warning(
                    "%s %s: %s; resume the run when it is back",
                    self._name(place),
                    otherwise,
                    reason(reply),
                )

    def _reported(
        self,
        worker: int,
        group: Sequence[Work],
        reply: Done | Raised | Lost,
        into: Mapping[str, Float[Any, "params"]] | None,
    ) -> Iterator[Answer]:
        """What came of a site's work, as far as it is what was asked for."""
        if not isinstance(reply, Done) or not isinstance(reply.value, tuple):
            why = ODD if isinstance(reply, Done) else reply
            worded = f"{self._name(worker)}: {reason(why)}"
            for each in group:  # one by one: to ask them again apart would find out nothing
                error = UserError(worded) if isinstance(why, Raised) else RuntimeError(worded)
                yield Failure((each.client,), worded, error, each.attempt)
            return
        asked = {each.client: each for each in group}
        for answer in reply.value:
            if isinstance(answer, Failure):
                named = answer.clients if isinstance(answer.clients, tuple) else ()
                clients = tuple(client for client in named if client in asked)
                if clients:
                    error = RuntimeError(f"{self._name(worker)}: {answer.reason}")
                    yield Failure(clients, str(answer.reason), error, group[0].attempt)
                continue
            if wrong := check_report(answer, asked, self.join().metrics):
                _log.warning("%s %s; it is not used", self._name(worker), wrong)
                continue
            row = None if into is None else into.get(answer.client)
            if row is not None and (row.shape, row.dtype) == (answer.vector.shape, answer.vector.dtype):
                row[:] = answer.vector
                answer = answer._replace(vector=row)
            yield answer

    def _letter(self, worker: int, order: Order) -> Order:
        """An order with what holds, as far as the worker has not been told."""
        told = self._told[worker]
        notices = tuple(one for one in self._in_force if told.get(type(one)) is not one)
        told |= {type(one): one for one in notices}
        method = "" if order.verb in ("join", "start") else self._begin.run
        letter = Letter(self._pins.run, method, self._frozen.digest, notices, order)
        return Order("letter", (letter,))

    def _forget(self, worker: int) -> None:
        self._told[worker] = {}

    @property
    def _in_force(self) -> tuple[Notice, ...]:
        """What a site has to know; nothing before a method has begun."""
        return (self._begin, self._frozen) if self._begin.run else ()

    def _joined(self, worker: int, reply: Any, kind: type = Joining) -> Any:
        if not isinstance(reply, Done) or not isinstance(reply.value, kind):
            why = ODD if isinstance(reply, Done) else reply
            raise UserError(f"{self._name(worker)} has not joined: {reason(why)}")
        return reply.value

    def _name(self, worker: int) -> str:
        if self._joinings:
            return f"site '{self._joinings[worker].site}'"
        key = self._pins.keys[worker]
        known = next((site for site, own in self._pins.before.items() if own == key), None)
        # Of a key in PEM the last numbers, by which an eye can tell it from others.
        shown = "".join(line for line in key.splitlines() if not line.startswith("-----"))[-16:]
        dots = "…" * (shown != key)
        return f"site '{known}'" if known else f"the site behind the node with key '{dots}{shown}'"
