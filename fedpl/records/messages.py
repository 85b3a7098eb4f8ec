"""What server and clients say to each other: plain records, and nothing else crosses between them.

A site is where clients live: their data, their private memory, the frozen model, their noise. The server
knows its members, the task vectors that arrive and its own state. A tensor in a message may be a view that
is lent (same process) or have come over a wire; on the way, and at a server without sites, it is an array.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from fedpl.records.layout import AdapterLayout
from fedpl.records.scores import Metric, Scores

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from fedpl.objectives import Objective  # a value that travels; nothing of it is used here

SplitName: TypeAlias = Literal["train", "validation", "test"]


class Member(NamedTuple):
    """What the server learns of a client when it joins.

    Attributes:
        client: Its id.
        examples: Training examples.
        floor: Scores on its test split of the best answer without any learning (the majority class); None
            without test data.
        origin: Digest of its data: a resumed run and a returning site are compared by it.
        group: Its true group where the data names one; for studies, no method reads it.
    """

    client: str
    examples: int
    floor: Scores | None
    origin: str
    group: str = ""


class Census(NamedTuple):
    """What the server learns when all sites have joined.

    Attributes:
        members: The clients; a client's place is its row in every matrix of the server.
        layout: How the adapter's tensors lie in a vector.
        initial: θ₀, the same for all.
        metrics: What a score consists of, the primary metric first.
        labels: What answers may be, for people to read: names of the classes.
        place: Where and in which arithmetic clients train, for people to read.
        pairs: Whether an example is a pair of texts.
    """

    members: tuple[Member, ...]
    layout: AdapterLayout
    initial: "Float[Tensor, 'params']"
    metrics: tuple[Metric, ...]
    labels: tuple[str, ...]
    place: str
    pairs: bool = False

    @property
    def clients(self) -> tuple[str, ...]:
        """Ids by row."""
        return tuple(member.client for member in self.members)


class Halves(NamedTuple):
    """What is compared of the task vectors that two halves of a client's examples give.

    Attributes:
        columns: Ranges of columns.
        centred: Whether the head is centred first, see `fedpl.records.centring`.
    """

    columns: tuple[tuple[int, int], ...]
    centred: bool = False


class Work(NamedTuple):
    """One client's work in one round: self-contained, and the same however often it is sent.

    Attributes:
        client: Whose.
        round: Number of the round, from 1.
        received: The client's aggregate θ̄ᵢ; or several models, of which it takes the one of least loss on its
            training data (IFCA).
        splits: Splits on which to score the model that the client uses after training.
        objective: What to minimise.
        memory: Digest of what the client has to remember, from its last `Report`; empty: nothing yet.
        frozen: Digest of the change of the frozen weights that must be in force, from `Frozen`.
        attempt: 1 at first; answers to an earlier attempt are dropped.
        run: Which method of which run, for sites that serve several.
        sends: Whether τ leaves the client at all (not in local-only training); else it is neither clipped nor
            noised nor forged.
        halves: What `Report.halves` is about: the client then trains on either half of its examples too;
            None: it does not.
    """

    client: str
    round: int
    received: "Float[Tensor, 'params'] | Float[Tensor, 'models params']"
    splits: tuple[str, ...]
    objective: "Objective"
    memory: str = ""
    frozen: str = ""
    attempt: int = 1
    run: str = ""
    sends: bool = True
    halves: Halves | None = None


class Seconds(NamedTuple):
    """Where time went.

    Attributes:
        train: Local training.
        aggregate: The server's step.
        evaluate: Scoring.
    """

    train: float = 0.0
    aggregate: float = 0.0
    evaluate: float = 0.0


class Report(NamedTuple):
    """A client's answer.

    Attributes:
        client: Who answers.
        vector: τᵢ = θᵢ − θ̄ᵢ, clipped and noised before it is here.
        examples: Training examples.
        steps: Optimiser steps taken.
        loss: Mean training loss.
        scores: Scores of the model that the client uses after training, by split that it has data of: θᵢ,
            unless its objective keeps a personal model.
        seconds: What it took.
        memory: Digest of what the client remembers from now on; empty: nothing.
        choice: Which of several received models it trained from.
        late: It came after the round had closed (simulated).
        attempt: Of the work that it answers.
        halves: Cosine, of what it was asked about, of the task vectors that two halves of its examples give;
            None: it was not asked, or has fewer than two.
    """

    client: str
    vector: "Float[Tensor, 'params']"
    examples: int
    steps: int
    loss: float
    scores: Mapping[str, Scores]
    seconds: Seconds = Seconds()
    memory: str = ""
    choice: int | None = None
    late: bool = False
    attempt: int = 1
    halves: float | None = None


class Failure(NamedTuple):
    """No answer, with the reason: clients that trained together and failed together.

    Attributes:
        clients: Whose work failed.
        reason: Why, in one line.
        error: The exception, where it happened in this process.
        attempt: Of the work.
    """

    clients: tuple[str, ...]
    reason: str
    error: BaseException | None = None
    attempt: int = 1


class Company(NamedTuple):
    """Who trains with whom in a round, and what was chosen for the machine: rounding depends on both.

    Attributes:
        groups: Ids of the clients that train together, group by group; who is asked and not in it never
            answers.
        capacity: What an executor chose by the memory that was free; handed back when a round is repeated.
    """

    groups: tuple[tuple[str, ...], ...]
    capacity: Mapping[str, int]

    def shared_out(self, work: Sequence[Work]) -> list[list[Work]]:
        """The work of each group of which anybody is asked."""
        asked = {each.client: each for each in work}
        found = ([asked[client] for client in members if client in asked] for members in self.groups)
        return [group for group in found if group]


class Frozen(NamedTuple):
    """Notice: from now on the frozen weights of the adapted layers are W₀ + residual, for all clients.

    Attributes:
        digest: Of the residual; empty with None.
        residual: One [out, in] matrix per adapted layer, flattened, in the order of the layout's A factors;
            None: W₀ itself again.
    """

    digest: str = ""
    residual: "Float[Tensor, 'weights'] | None" = None


class Begin(NamedTuple):
    """Notice: a method of a run starts, or goes on.

    Attributes:
        run: Its name, as in `Work.run`.
        folder: Where a site in this process keeps its clients' memory; None: nowhere but in memory.
    """

    run: str
    folder: str | None = None


class Deliver(NamedTuple):
    """Notice: the run has ended, clients keep these aggregates.

    Attributes:
        folder: The run directory; a site in this process writes adapters into it.
        clients: Whose.
        models: The last θ̄ᵢ, a row each.
        objective: Says what a client's personal model is.
        memories: Digests of what clients remember.
        residual: What has been added to the frozen weights; None: nothing.
        round: After which round.
    """

    folder: str
    clients: tuple[str, ...]
    models: "Float[Tensor, 'clients params']"
    objective: "Objective"
    memories: Mapping[str, str]
    residual: "Float[Tensor, 'weights'] | None" = None
    round: int = 0

    def among(self, rows: Sequence[int]) -> "Deliver":
        """The same for the clients of some rows."""
        own = tuple(self.clients[row] for row in rows)
        memories = {client: self.memories.get(client, "") for client in own}
        return self._replace(clients=own, models=self.models[rows], memories=memories)


class Choose(NamedTuple):
    """Notice: clients choose by their validation data which model answers for them from now on.

    Attributes:
        folder: The run directory; what they choose is written into it.
        clients: Whose.
        models: The last θ̄ᵢ, a row each.
        memories: Digests of what clients remember.
        tuned: Who remembers the model that it used in the last round.
        local: What training alone gave, a row each; None: nobody was.
        round: After which round.
    """

    folder: str
    clients: tuple[str, ...]
    models: "Float[Tensor, 'clients params']"
    memories: Mapping[str, str]
    tuned: tuple[str, ...] = ()
    local: "Float[Tensor, 'clients params'] | None" = None
    round: int = 0

    def among(self, rows: Sequence[int]) -> "Choose":
        """The same for the clients of some rows."""
        own, tuned = tuple(self.clients[row] for row in rows), set(self.tuned)
        return self._replace(
            clients=own,
            models=self.models[rows],
            memories={client: self.memories.get(client, "") for client in own},
            tuned=tuple(client for client in own if client in tuned),
            local=None if self.local is None else self.local[rows],
        )


Answer: TypeAlias = Report | Failure
Notice: TypeAlias = Frozen | Begin | Deliver | Choose


def missing(asked: Sequence[str], company: Company) -> list[str]:
    """Who was asked and is in no group."""
    there = {client for group in company.groups for client in group}
    return [client for client in asked if client not in there]
