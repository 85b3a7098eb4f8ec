"""The rounds of a federated run, as a generator: draw, receive, train, vet, compare, mix, score."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.errors import UserError
from fedpl.interop import allocate, borrow, lend
from fedpl.layout import AdapterLayout
from fedpl.objectives import Objective
from fedpl.rounds.attacks import attack
from fedpl.rounds.checkpoints import Checkpoint, Ledger
from fedpl.rounds.executor import ClientUpdate, Executor, Job
from fedpl.rounds.gathering import Gathering
from fedpl.rounds.journal import Journal
from fedpl.rounds.privacy import privatise
from fedpl.rounds.sampling import Cohort, draw, hostile_rows
from fedpl.rounds.vetting import vet
from fedpl.scores import Scores
from fedpl.server.aggregator import Aggregator
from fedpl.server.state import ServerState, TaskVectors

_log = logging.getLogger(__name__)
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
        vectors: The task vectors, in memory that the next round overwrites; rows of clients that did not
            take part hold what they last sent.
        similarity: sᵢₖ per block.
        weights: pᵢₖ per block.
        updates: What each client reported whose task vector was used, in the order of the rows.
        aggregated: Scores of the new θ̄ᵢ of all clients by split and client; the splits that were due.
        seconds: Where the time went.
        bytes_up: Traffic from all clients to the server.
        bytes_down: Traffic from the server to all clients.
        drawn: How many clients were asked to take part.
        rejected: Why task vectors were not used, by client.
        ledger: What the server knows of each client.
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
    drawn: int
    rejected: Mapping[str, str]
    ledger: Ledger

    def tuned(self, split: str) -> dict[str, Scores]:
        """Scores of the tuned θᵢ of those who took part, by client; empty if the split was not due."""
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
        seed: The run's seed.
        participation: Who takes part, and whose task vector counts.
        faults: Simulated faults and attacks.
        privacy: What is done to a task vector before it leaves its client.
        objective: What clients minimise; None: client.objective of the configuration.
        true_groups: The clients' true groups where the data names them; for studies.
    """

    clients: tuple[str, ...]
    layout: AdapterLayout
    aggregator: Aggregator
    executor: Executor
    initial: Float[Tensor, "params"]
    evaluate_every: int = 1
    on_update: Callable[[int, ClientUpdate], None] = field(default=lambda round, update: None)
    seed: int = 0
    participation: ParticipationConfig = ParticipationConfig()
    faults: FaultsConfig = FaultsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    objective: Objective | None = None
    true_groups: tuple[str, ...] | None = None

    def splits_due(self, round: int, rounds: int) -> tuple[str, ...]:
        """Splits to score in a round: validation when its turn has come, the test only at the end."""
        last = round == rounds
        every = self.evaluate_every
        validation = every > 0 and (last or round % every == 0)
        return ("validation",) * validation + ("test",) * last

    @property
    def needs_last_sent(self) -> bool:
        """Whether a client may be away from a round, so that what it last sent has to be kept."""
        return self.participation.fraction < 1 or self.faults.lost > 0


def run_rounds(
    federation: Federation,
    rounds: int,
    start: Checkpoint | None = None,
    journal: Journal | None = None,
) -> Iterator[RoundResult]:
    """FedBip and its relatives (arXiv 2509.12697): one `RoundResult` per round.

    Args:
        federation: Clients, server rule, executor.
        rounds: Number of rounds in all.
        start: Where an interrupted run stood; None: at the beginning.
        journal: Where the open round is kept, so that it can be gone on with; None keeps nothing.

    Raises:
        UserError: If fewer task vectors of a round can be used than participation.min_clients.
    """
    n = len(federation.clients)
    matrix = allocate(n, federation.layout.size, federation.initial.device)
    _prepare(federation, start)
    if start is None:
        reference = jnp.array(lend(federation.initial))  # an own copy: the state outlives the tensor
        state, ledger = federation.aggregator.init(reference, n), Ledger.new(n)
    else:
        state, ledger = start.state, start.ledger
        if start.last_sent is not None:
            matrix.copy_(torch.from_numpy(start.last_sent))
    _shift(federation, state)
    for round in range(state.round + 1, rounds + 1):
        due = federation.splits_due(round, rounds)
        cohort = draw(federation.clients, federation.participation, federation.faults, federation.seed, round)

        # 1. Client i receives its own aggregate, fine-tunes it and fills row i with its task vector.
        answering = [row for row in cohort.drawn if row not in cohort.lost]
        state = _chosen(federation, state, answering)
        updates, rejected = _gather(federation, state, matrix, cohort, answering, round, due, journal)
        ledger = _entered(ledger, cohort, updates)
        for row in sorted(set(cohort.drawn) - cohort.lost - {update.row for update in updates}):
            matrix[row].zero_()

        # 2. The server compares the task vectors and mixes them, one aggregate per client.
        begin = time.perf_counter()
        vectors = TaskVectors(
            matrix=lend(matrix),
            mask=jnp.array(ledger.age == 0),
            num_examples=jnp.array(ledger.examples, jnp.int32),
            age=jnp.array(ledger.age, jnp.int32),
            true_groups=federation.true_groups,
        )
        state, aggregation = federation.aggregator.update(state, vectors, federation.layout)
        # The matrix is shared memory: nothing may be running on it when the next round fills it.
        jax.block_until_ready((state, aggregation))
        aggregate_seconds = time.perf_counter() - begin

        # 3. The new aggregates of all clients are scored as they will receive them.
        begin = time.perf_counter()
        _shift(federation, state)
        personal = borrow(state.personal)
        aggregated = {split: federation.executor.score(federation.clients, personal, split) for split in due}
        del personal
        evaluate_seconds = time.perf_counter() - begin + sum(u.evaluate_seconds for u in updates)

        sent = len(cohort.drawn) - len(cohort.lost)
        up = federation.aggregator.exchanged(federation.layout)
        down = federation.aggregator.received(federation.layout, sent)
        yield RoundResult(
            round=round,
            state=state,
            vectors=matrix,
            similarity=np.asarray(aggregation.similarity),
            weights=np.asarray(aggregation.weights),
            updates=tuple(updates),
            aggregated=aggregated,
            seconds=Seconds(sum(u.train_seconds for u in updates), aggregate_seconds, evaluate_seconds),
            bytes_up=sent * up * BYTES_PER_PARAMETER,
            bytes_down=len(cohort.drawn) * down * BYTES_PER_PARAMETER,
            drawn=len(cohort.drawn),
            rejected=rejected,
            ledger=ledger,
        )


def _prepare(federation: Federation, start: Checkpoint | None) -> None:
    """Put the executor where it was; nothing of a method that ran before is left in it."""
    executor = federation.executor
    executor.shift(None)
    for row, client in enumerate(federation.clients):
        kept = start.client_states.get(row, {}) if start is not None else {}
        executor.load_client_state(client, {name: torch.from_numpy(value) for name, value in kept.items()})
    if start is not None:
        executor.set_capacity(start.capacity)


def _shift(federation: Federation, state: ServerState) -> None:
    """What the server adds to the frozen weights of all clients (FLoRA, FedEx), where it does."""
    if "residual" in state.memory:
        federation.executor.shift(borrow(state.memory["residual"]))


def _chosen(federation: Federation, state: ServerState, asked: Sequence[int]) -> ServerState:
    """Where the server has several models, the clients that are asked choose theirs (IFCA)."""
    candidates = federation.aggregator.candidates(state)
    if candidates is None:
        return state
    losses = np.full((len(federation.clients), len(candidates)), np.nan, np.float32)
    names = [federation.clients[row] for row in asked]
    losses[list(asked)] = federation.executor.losses(names, borrow(candidates)).cpu().numpy()
    chosen = federation.aggregator.assign(state, jnp.array(losses))
    # Whoever is away has chosen nothing and keeps what it has.
    present = jnp.zeros(len(losses), bool).at[jnp.array(asked, int)].set(True)
    return chosen._replace(personal=jnp.where(present[:, None], chosen.personal, state.personal))


def _gather(
    federation: Federation,
    state: ServerState,
    matrix: Float[Tensor, "clients params"],
    cohort: Cohort,
    answering: Sequence[int],
    round: int,
    due: tuple[str, ...],
    journal: Journal | None,
) -> tuple[list[ClientUpdate], dict[str, str]]:
    """Reports of the clients whose task vectors can be used, by row, and why the others' cannot."""
    clients, seed = federation.clients, federation.seed
    personal = borrow(state.personal)
    jobs = [Job(clients[row], row, round, personal[row], due, federation.objective) for row in answering]
    gathering = Gathering(
        federation.executor,
        isolate=federation.participation.on_client_error == "skip",
        timeout=federation.participation.timeout,
        seal=lambda client, vector: privatise(vector, federation.privacy, seed, round, client),
        heard=lambda update: federation.on_update(round, update),
        journal=journal,
    )
    updates, rejected = gathering(jobs, matrix)
    hostile = hostile_rows(clients, federation.faults, seed)
    attack(matrix, clients, hostile, {u.row for u in updates}, federation.faults, seed, round)
    rejected |= {clients[row]: "never answered" for row in sorted(cohort.lost)}
    late = [clients[row] for row in cohort.late]
    asked = {job.client: job.row for job in jobs}
    rejected |= vet(updates, asked, late, matrix, federation.participation.max_norm)
    for client, reason in rejected.items():
        _log.warning("round %d: '%s' is left out: %s", round, client, reason)
    usable = sorted((u for u in updates if u.client not in rejected), key=lambda update: update.row)
    needed = federation.participation.min_clients
    if len(usable) < min(needed, len(clients)):
        reasons = "; ".join(f"'{client}' {reason}" for client, reason in list(rejected.items())[:3])
        raise UserError(
            f"round {round}: {len(usable)} task vectors can be used, participation.min_clients asks for "
            f"{needed} ({reasons}); the state after round {round - 1} is intact"
        )
    return usable, rejected


def _entered(ledger: Ledger, cohort: Cohort, updates: list[ClientUpdate]) -> Ledger:
    """The ledger after a round's answers."""
    used = {update.row: update.examples for update in updates}
    age, examples, sent = (values.copy() for values in ledger)
    age[age >= 0] += 1
    for row in cohort.drawn:
        if row in cohort.lost:
            continue
        # What was not usable has taken the place of what the client had sent before.
        age[row] = 0 if row in used else -1
        examples[row] = used.get(row, examples[row])
        sent[row] += 1
    return Ledger(age, examples, sent)
