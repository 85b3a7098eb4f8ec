"""The rounds of a federated run, as a generator: receive, train, compare, mix, score."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from torch import Tensor

from fedpl.interop import allocate, borrow, lend
from fedpl.layout import AdapterLayout
from fedpl.objectives import Objective
from fedpl.rounds.executor import ClientUpdate, Executor, Job
from fedpl.scores import Scores
from fedpl.server.aggregator import Aggregator
from fedpl.server.state import ServerState, TaskVectors

BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Seconds:
    """Where a round's time went."""

    train: float = 0.0
    aggregate: float = 0.0
    evaluate: float = 0.0


@dataclass(frozen=True)
class RoundResult:
    """Everything a round produced.

    Attributes:
        round: Number of the round, from 1.
        state: The server's state after it; valid until the next round is asked for.
        vectors: The task vectors, in memory that the next round overwrites.
        similarity: sᵢₖ per block.
        weights: pᵢₖ per block.
        updates: What each client reported, in the order of the rows.
        aggregated: Scores of the new θ̄ᵢ by split and client; the splits that were due.
        seconds: Where the time went.
        bytes_up: Traffic from all clients to the server.
        bytes_down: Traffic from the server to all clients.
    """

    round: int
    state: ServerState
    vectors: Float[Tensor, "clients params"]
    similarity: Float[np.ndarray, "blocks clients clients"]
    weights: Float[np.ndarray, "blocks clients clients"]
    updates: tuple[ClientUpdate, ...]
    aggregated: dict[str, dict[str, Scores]]
    seconds: Seconds
    bytes_up: int
    bytes_down: int

    def tuned(self, split: str) -> dict[str, Scores]:
        """Scores of the tuned θᵢ by client, empty if the split was not due."""
        return {u.client: u.tuned[split] for u in self.updates if split in u.tuned}


@dataclass(frozen=True)
class Federation:
    """What stays the same through a run.

    Attributes:
        clients: Client ids; a client's place is its row in every matrix.
        layout: The adapter's layout.
        aggregator: The server rule.
        executor: Who trains.
        initial: θ₀, on the device where task vectors live.
        evaluate_every: Score validation data every so many rounds and after the last; 0: never.
        on_update: Called with every client's report as it arrives.
        true_groups: The clients' true groups where the data names them; for studies.
        objective: What clients minimise; None: client.objective of the configuration.
    """

    clients: tuple[str, ...]
    layout: AdapterLayout
    aggregator: Aggregator
    executor: Executor
    initial: Float[Tensor, "params"]
    evaluate_every: int = 1
    on_update: Callable[[int, ClientUpdate], None] = field(default=lambda round, update: None)
    true_groups: tuple[str, ...] | None = None
    objective: Objective | None = None

    def splits_due(self, round: int, rounds: int) -> tuple[str, ...]:
        """Splits to score in a round: validation when its turn has come, the test only at the end."""
        last = round == rounds
        every = self.evaluate_every
        validation = every > 0 and (last or round % every == 0)
        return ("validation",) * validation + ("test",) * last


def run_rounds(federation: Federation, rounds: int) -> Iterator[RoundResult]:
    """FedBip and its relatives (arXiv 2509.12697): one `RoundResult` per round.

    Args:
        federation: Clients, server rule, executor.
        rounds: Number of rounds.
    """
    n = len(federation.clients)
    matrix = allocate(n, federation.layout.size, federation.initial.device)
    reference = jnp.array(lend(federation.initial))  # an own copy: the state outlives the tensor
    state = federation.aggregator.init(reference, n)
    federation.executor.shift(None)  # another method may have left its own
    for client in federation.clients:
        federation.executor.load_client_state(client, {})
    for round in range(1, rounds + 1):
        due = federation.splits_due(round, rounds)

        # 1. Client i receives its own aggregate, fine-tunes it and fills row i with its task vector.
        updates = sorted(_train(federation, state, matrix, round, due), key=lambda update: update.row)

        # 2. The server compares the task vectors and mixes them, one aggregate per client.
        begin = time.perf_counter()
        vectors = TaskVectors(
            matrix=lend(matrix),
            mask=jnp.ones(n, bool),
            num_examples=jnp.array([update.examples for update in updates]),
            true_groups=federation.true_groups,
        )
        state, aggregation = federation.aggregator.update(state, vectors, federation.layout)
        # The matrix is shared memory: nothing may be running on it when the next round fills it.
        jax.block_until_ready((state, aggregation))
        aggregate_seconds = time.perf_counter() - begin

        # 3. The new aggregates are scored as their clients will receive them.
        begin = time.perf_counter()
        personal = borrow(state.personal)
        aggregated = {split: federation.executor.score(federation.clients, personal, split) for split in due}
        del personal
        evaluate_seconds = time.perf_counter() - begin + sum(u.evaluate_seconds for u in updates)

        traffic = n * federation.aggregator.exchanged(federation.layout) * BYTES_PER_PARAMETER
        yield RoundResult(
            round=round,
            state=state,
            vectors=matrix,
            similarity=np.asarray(aggregation.similarity),
            weights=np.asarray(aggregation.weights),
            updates=tuple(updates),
            aggregated=aggregated,
            seconds=Seconds(sum(u.train_seconds for u in updates), aggregate_seconds, evaluate_seconds),
            bytes_up=traffic,
            bytes_down=traffic,
        )


def _train(
    federation: Federation,
    state: ServerState,
    matrix: Float[Tensor, "clients params"],
    round: int,
    due: tuple[str, ...],
) -> Iterator[ClientUpdate]:
    personal = borrow(state.personal)
    jobs = (
        Job(client, row, round, personal[row], due, federation.objective)
        for row, client in enumerate(federation.clients)
    )
    for update in federation.executor.train(jobs, matrix):
        federation.on_update(round, update)
        yield update
