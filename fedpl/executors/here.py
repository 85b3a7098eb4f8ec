"""Sites in this process: not one number is copied on the way."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.executors.protocol import GoOn
from fedpl.records.messages import Answer, Census, Company, Failure, Notice, Work
from fedpl.records.scores import Scores

if TYPE_CHECKING:
    import torch

    from fedpl.site import site as sites
else:
    torch, sites = map(deferred, ("torch", "fedpl.site.site"))


class Here:
    """Trains and scores clients in this process, group after group; see `fedpl.executors.protocol.Executor`.

    Args:
        site: Where the clients live.
        device: Where the server keeps task vectors.
        notes: About the data, for the first lines of a run.
    """

    def __init__(self, site: "sites.Site", device: str | None = None, notes: Sequence[str] = ()) -> None:
        self.site = site
        self.notes = tuple(notes)
        census = site.join()
        self._census = census if device is None else census._replace(initial=census.initial.to(device))

    def join(self) -> Census:
        return self._census

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        return self.site.plan(work, capacity)

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Float[Any, "params"]] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        if company.capacity:
            self.site.plan((), company.capacity)
        if into is None:
            into = {each.client: torch.empty(self.join().layout.size) for each in work}
        for group in company.shared_out(work):
            if go_on is not None and not go_on():
                break
            try:
                answers: list[Answer] = list(self.site.train(group, into))
            except UserError:
                raise
            except Exception as error:
                reason = f"its training failed: {' '.join(f'{type(error).__name__}: {error}'.split())}"
                clients = tuple(each.client for each in group)
                answers = [Failure(clients, reason, error, group[0].attempt)]
            yield from answers
        self.site.foundation.hardware.give_back()  # the server's step is next

    def score(
        self, clients: Sequence[str], models: Float[Any, "clients params"], split: str
    ) -> Mapping[str, Scores]:
        return self.site.score(clients, models, split)

    def tell(self, notice: Notice) -> None:
        self.site.tell(notice)
