"""Who trains and scores the clients, as the rounds see it. Imports neither torch nor JAX."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float

from fedpl.records.messages import Answer, Census, Company, Notice, Work
from fedpl.records.scores import Scores

GoOn: TypeAlias = Callable[[], bool]


@runtime_checkable
class Executor(Protocol):
    """The way to the sites: five verbs, whose messages are plain records.

    Sites may live in this process, in others, or on machines of other organisations. Rows are of the kind of
    θ₀ in the census: torch's where a site lives here, else NumPy's.
    """

    def join(self) -> Census:
        """All clients, and what they have in common. The same at every call of one executor.

        Raises:
            UserError: If sites differ in what they must share, by name.
        """
        ...

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        """Who trains together, as a plain value. Whoever repeats a round hands the same back to `train`.

        Args:
            work: A round's work; with none, what is said of the machine is still there.
            capacity: What had been chosen before, from an earlier plan; None: as the machine is now.
        """
        ...

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Float[Any, "params"]] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        """Answers as they are ready, at most one for each piece of work; groups are never torn apart in time.

        Several groups may be under way at once; who has begun is waited for.

        Args:
            work: What to do; it may be a part of what was planned, in whole groups.
            company: From `plan`.
            into: A row for each client, to be filled without a copy where memory is shared; reports then hold
                these rows.
            go_on: Asked before each group begins: whether any may; None: all.
        """
        ...

    def score(
        self, clients: Sequence[str], models: Float[Any, "clients params"], split: str
    ) -> Mapping[str, Scores]:
        """Quality of one adapter per client on a split of the client's own data."""
        ...

    def tell(self, notice: Notice) -> None:
        """Tell every site something that holds from now on."""
        ...
