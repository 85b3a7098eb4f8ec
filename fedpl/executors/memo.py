"""Several methods on the same clients share their first round: all start at θ₀ with the same streams."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float

from fedpl.executors.protocol import Executor, GoOn
from fedpl.interop import cloned, library
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
        self._start: Float[Any, "..."] | None = None
        self._known: dict[str, _Known] = {}

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Float[Any, "params"]] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        known = [
            each
            for each in work
            if each.client in self._known and _same(self._known[each.client].work, each, self.sealed)
        ]
        starts = [self._known[each.client].work.received for each in known]
        alike = equal(starts, [each.received for each in known])
        repeated = {each.client for each, same in zip(known, alike, strict=True) if same}
        new = {each.client: each for each in work if each.client not in repeated}
        kept = self._kept(list(new.values()))
        for each in work:
            if each.client in repeated:
                report = self._known[each.client].report
                report = report if each.halves else report._replace(halves=None)
                if into is not None:
                    into[each.client][:] = report.vector
                    report = report._replace(vector=into[each.client])
                yield report._replace(attempt=each.attempt)
        for answer in self.executor.train(list(new.values()), company, into, go_on) if new else ():
            if isinstance(answer, Report) and answer.client in kept and not answer.memory:
                copied = answer._replace(vector=cloned(answer.vector))
                self._known[answer.client] = _Known(kept[answer.client], copied)
            yield answer

    def join(self) -> Census:
        return self.executor.join()

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        return self.executor.plan(work, capacity)

    def score(
        self, clients: Sequence[str], models: Float[Any, "clients params"], split: str
    ) -> Mapping[str, Scores]:
        return self.executor.score(clients, models, split)

    def tell(self, notice: Notice) -> None:
        self.executor.tell(notice)

    def _kept(self, work: Sequence[Work]) -> dict[str, Work]:
        """What can be learnt from, by client, with a start of its own: one copy for all who start at θ₀."""
        firsts = [each for each in work if each.round == 1 and not each.frozen]
        if not firsts:
            return {}
        if self._start is None or not all(equal([self._start], [firsts[0].received])):
            self._start = cloned(firsts[0].received)
        same = equal([self._start] * len(firsts), [each.received for each in firsts])
        return {
            each.client: each._replace(received=self._start if shared else cloned(each.received))
            for each, shared in zip(firsts, same, strict=True)
        }


def _same(before: Work, work: Work, sealed: bool) -> bool:
    """Whether work asks for the same, its start aside."""
    return (
        set(work.splits) <= set(before.splits)
        and (before.round, before.objective, before.memory, before.frozen)
        == (work.round, work.objective, work.memory, work.frozen)
        and (before.sends == work.sends or not sealed)
        and work.halves in (None, before.halves)
    )


def equal(some: Sequence[Float[Any, "..."]], others: Sequence[Float[Any, "..."]]) -> list[bool]:
    """Which rows are what their partners are; a device is waited for once, not for each."""
    same = [
        (one == other).all()
        if one.shape == other.shape
        else library(one).zeros((), dtype=bool, device=one.device)
        for one, other in zip(some, others, strict=True)
    ]
    return library(some[0]).stack(same).tolist() if same else []
