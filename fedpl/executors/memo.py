"""Several methods on the same clients share their first round: all start at θ₀ with the same streams."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.executors.protocol import Executor
from fedpl.records.messages import Answer, Census, Company, Notice, Report, Work
from fedpl.records.scores import Scores


class _Known(NamedTuple):
    """A client's first round."""

    work: Work
    report: Report


class FirstRoundMemo:
    """An executor that trains each client's first round once and repeats the answer afterwards.

    The answer is exact, not an approximation: a client's streams depend on seed, round and client alone, and
    what was received and the objective are compared. Clients that remember something train again, since
    what they remember belongs to one run; so do those whose frozen weights have been changed.

    Args:
        executor: Who trains.
        sealed: Whether what is sent differs from what is kept (clipped, noised, forged): then a client that
            sends nothing has another answer.
    """

    def __init__(self, executor: Executor, sealed: bool = True) -> None:
        self.executor = executor
        self.sealed = sealed
        self._start: Float[Tensor, "..."] | None = None
        self._known: dict[str, _Known] = {}

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Float[Tensor, "params"]] | None = None,
    ) -> Iterator[Answer]:
        new: dict[str, Work] = {}
        for each in work:
            known = self._known.get(each.client)
            if known is None or not _same(known, each, self.sealed):
                new[each.client] = each
                continue
            report = known.report
            if into is not None:
                report = report._replace(vector=into[each.client].copy_(report.vector))
            yield report._replace(attempt=each.attempt)
        for answer in self.executor.train(list(new.values()), company, into) if new else ():
            if isinstance(answer, Report) and answer.client in new:
                self._learn(new[answer.client], answer)
            yield answer

    def join(self) -> Census:
        return self.executor.join()

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        return self.executor.plan(work, capacity)

    def score(
        self, clients: Sequence[str], models: Float[Tensor, "clients params"], split: str
    ) -> Mapping[str, Scores]:
        return self.executor.score(clients, models, split)

    def tell(self, notice: Notice) -> None:
        self.executor.tell(notice)

    def _learn(self, work: Work, report: Report) -> None:
        if work.round != 1 or work.frozen or report.memory:
            return
        if self._start is None or not torch.equal(self._start, work.received):
            self._start = work.received.clone()
        # All start at the same θ₀: one copy serves them.
        kept = work._replace(received=self._start)
        self._known[work.client] = _Known(kept, report._replace(vector=report.vector.clone()))


def _same(known: _Known, work: Work, sealed: bool) -> bool:
    before = known.work
    return (
        set(work.splits) <= set(before.splits)
        and (before.round, before.objective, before.memory, before.frozen)
        == (work.round, work.objective, work.memory, work.frozen)
        and (before.sends == work.sends or not sealed)
        and torch.equal(before.received, work.received)
    )
