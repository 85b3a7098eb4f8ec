"""Step 1 of a round: the drawn clients train, and what they deliver is kept as it comes."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float

from fedpl.executors.protocol import Executor
from fedpl.records.messages import Answer, Company, Failure, Report, Work
from fedpl.rounds.journal import Delivery, Journal

_log = logging.getLogger(__name__)
NEVER = "never answered"


@dataclass(frozen=True)
class Gathering:
    """How the answers of a round are gathered.

    Attributes:
        executor: Who trains.
        isolate: Whether a client whose training fails is left out; else its error ends the run.
        timeout: Seconds after which no more clients begin; None waits for all.
        clock: Seconds since some moment.
        heard: Called with every report as it arrives.
        journal: Where they are kept until the round is closed; None keeps nothing.
        settle: Called for each task vector that has been put where it belongs, or looked at there: on disk it
            need not stay in memory.
    """

    executor: Executor
    isolate: bool = False
    timeout: float | None = None
    clock: Callable[[], float] = time.monotonic
    heard: Callable[[Report], None] = field(default=lambda report: None)
    journal: Journal | None = None
    settle: Callable[[], None] = field(default=lambda: None)

    def __call__(
        self, work: Sequence[Work], rows: dict[str, Float[Any, "params"]]
    ) -> tuple[list[Report], dict[str, str]]:
        """Fill a row for each piece of work.

        Args:
            work: The clients' work in one round.
            rows: Where their task vectors belong.

        Returns:
            The reports, and why clients delivered nothing, by client.
        """
        if not work:
            return [], {}
        company = self.executor.plan(work)
        if self.journal is not None:
            company = self.journal.open(work[0].round, company)
            self.executor.plan((), company.capacity)  # what another machine chose holds from here on
        round = _Round(self, {each.client: each for each in work}, rows, company)
        round.recall()
        round.train()
        found = {r.client: r for delivery in round.delivered.values() for r in delivery.reports}
        reports = [found[each.client] for each in work if each.client in found]
        errors = {c: why for delivery in round.delivered.values() for c, why in delivery.errors.items()}
        return reports, errors | {c: NEVER for c in rows if c not in errors and c not in found}


class _Round:
    """The open round: what has come of each group.

    Attributes:
        delivered: What finished groups delivered, by number; behind them, what came from nobody's work.
    """

    def __init__(
        self,
        gathering: Gathering,
        asked: dict[str, Work],
        rows: dict[str, Float[Any, "params"]],
        company: Company,
    ) -> None:
        self.gathering = gathering
        self.asked = asked
        self.rows = rows
        self.company = company
        self.delivered: dict[int, Delivery] = {}
        self._group = {c: number for number, members in enumerate(company.groups) for c in members}
        self._reports: dict[str, Report] = {}
        self._errors: dict[str, str] = {}
        self._times: Counter[str] = Counter()

    def recall(self) -> None:
        """Take what groups delivered before an interruption."""
        journal = self.gathering.journal
        if journal is None:
            return
        for number in range(len(self.company.groups) + 1):
            known = journal.read(number, self.rows, self.gathering.settle)
            if known is None:
                continue
            self.delivered[number] = known
            for report in known.reports:
                self._times[report.client] += 1
                self.gathering.heard(report)

    def train(self) -> None:
        """Let the other groups train, in the company that they would have had."""
        begin, timeout = self.gathering.clock(), self.gathering.timeout

        def closed() -> bool:
            return timeout is not None and self.gathering.clock() - begin > timeout

        left = [number for number in range(len(self.company.groups)) if number not in self.delivered]
        work = [self.asked[c] for number in left for c in self.company.groups[number]]
        for answer in self.gathering.executor.train(work, self.company, self.rows, lambda: not closed()):
            self._hear(answer)
        for number in left:
            if number in self.delivered:
                continue
            members = self.company.groups[number]
            # Nothing of clients who had not begun when the round closed; a resume repeats that.
            reason = f"had not begun when the round closed after {timeout:g} s" if closed() else NEVER
            self._errors |= {c: reason for c in members if c not in self._reports and c not in self._errors}
            self._finish(number)

    def _hear(self, answer: Answer) -> None:
        """Take an answer, and keep its group once it is complete."""
        if isinstance(answer, Failure):
            self._failed(answer)
            touched = answer.clients
        elif answer.client not in self._group:
            self._finish(len(self.company.groups), {answer.client: "was not asked"})
            return
        else:
            self._accept(answer)
            touched = (answer.client,)
        complete = {
            number
            for number in {self._group[client] for client in touched}
            if all(c in self._reports or c in self._errors for c in self.company.groups[number])
        }
        for number in complete:
            self._finish(number)

    def _accept(self, report: Report) -> None:
        """Keep a report, or the reason why it cannot be kept."""
        client, row = report.client, self.rows[report.client]
        if report.attempt != self.asked[client].attempt:
            _log.warning("an answer of '%s' to an earlier attempt is dropped", client)
            return
        self._times[client] += 1
        if self._times[client] > 1:
            # The later answer may be the forgery, or the earlier one: neither is used.
            self._reports.pop(client, None)
            self._errors[client] = f"answered {self._times[client]} times"
        elif report.vector.shape != row.shape or report.vector.dtype != row.dtype:
            came = f"{report.vector.dtype} {tuple(report.vector.shape)}"
            self._errors[client] = f"sent {came}, expected {row.dtype} {tuple(row.shape)}"
        else:
            self._reports[client] = self._settled(report)
            self.gathering.heard(report)

    def _failed(self, failure: Failure) -> None:
        """Clients that failed together train one by one, to find out whose fault it is."""
        round = self.asked[failure.clients[0]].round
        names = ", ".join(f"'{client}'" for client in failure.clients)
        if not self.gathering.isolate:
            error = failure.error or RuntimeError(failure.reason)
            error.add_note(f"in round {round}, while training {names}")
            raise error
        _log.warning("round %d: training %s failed", round, names, exc_info=failure.error)
        if len(failure.clients) == 1:
            self._errors[failure.clients[0]] = failure.reason
            return
        again = [self.asked[c]._replace(attempt=failure.attempt + 1) for c in failure.clients]
        self.asked |= {each.client: each for each in again}
        alone = Company(tuple((client,) for client in failure.clients), self.company.capacity)
        for answer in self.gathering.executor.train(again, alone, self.rows):
            if isinstance(answer, Failure):
                self._failed(answer)
            else:
                self._accept(answer)
        silent = [c for c in failure.clients if c not in self._reports and c not in self._errors]
        self._errors |= dict.fromkeys(silent, NEVER)

    def _settled(self, report: Report) -> Report:
        """A report whose task vector lies where it belongs."""
        row = self.rows[report.client]
        if report.vector is not row:
            row[:] = report.vector
        self.gathering.settle()
        return report._replace(vector=row)

    def _finish(self, number: int, errors: Mapping[str, str] | None = None) -> None:
        """Keep what came of a group; again, if more has come of it."""
        members = self.company.groups[number] if number < len(self.company.groups) else ()
        found = {c: self._errors[c] for c in members if c in self._errors} | dict(errors or {})
        if number == len(self.company.groups) and number in self.delivered:
            found = self.delivered[number].errors | found
        delivery = Delivery(tuple(self._reports[c] for c in members if c in self._reports), found)
        self.delivered[number] = delivery
        if self.gathering.journal is not None:
            self.gathering.journal.write(number, delivery, self.gathering.settle)
