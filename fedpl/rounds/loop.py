"""The rounds of a federated run, as a generator: draw, receive, train, vet, compare, mix, score."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.conditions import ParticipationConfig
from fedpl.errors import UserError
from fedpl.executors.protocol import Executor
from fedpl.interop import allocate, borrow, lend
from fedpl.method import Method
from fedpl.records.messages import Begin, Census, Frozen, Report, Seconds, Work
from fedpl.records.scores import Scores
from fedpl.rounds.checkpoints import Checkpoint, Ledger
from fedpl.rounds.gathering import NEVER, Gathering
from fedpl.rounds.journal import Journal
from fedpl.rounds.vetting import vet
from fedpl.sampling import draw
from fedpl.server.state import ServerState, TaskVectors

_log = logging.getLogger(__name__)
BYTES_PER_PARAMETER = 4


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
        reports: What each client reported whose task vector was used, in the order of the rows.
        aggregated: Scores of the new θ̄ᵢ of all clients by split and client; the splits that were due.
        seconds: Where the time went.
        bytes_up: Traffic from all clients to the server.
        bytes_down: Traffic from the server to all clients.
        drawn: How many clients were asked to take part.
        rejected: Why task vectors were not used, by client.
        ledger: What the server knows of each client.
        memories: Digests of what each client remembers.
    """

    round: int
    state: ServerState
    vectors: Float[Tensor, "clients params"]
    similarity: Float[np.ndarray, "blocks clients clients"]
    weights: Float[np.ndarray, "blocks clients clients"]
    reports: tuple[Report, ...]
    aggregated: Mapping[str, Mapping[str, Scores]]
    seconds: Seconds
    bytes_up: int
    bytes_down: int
    drawn: int
    rejected: Mapping[str, str]
    ledger: Ledger
    memories: Mapping[str, str]

    def tuned(self, split: str) -> dict[str, Scores]:
        """Scores of the tuned θᵢ of those who took part, by client; empty if the split was not due."""
        return {report.client: report.scores[split] for report in self.reports if split in report.scores}


@dataclass(frozen=True)
class Federation:
    """What stays the same through a run.

    Attributes:
        method: What clients minimise, and the server's rule.
        executor: The way to the clients.
        seed: The run's seed.
        participation: Who takes part, and whose task vector counts.
        evaluate_every: Score validation data every so many rounds and after the last; 0: never.
        folder: Where sites in this process keep what their clients remember; None: in memory alone.
        heard: Called with the round and every client's report as it arrives.
    """

    method: Method
    executor: Executor
    seed: int = 0
    participation: ParticipationConfig = ParticipationConfig()
    evaluate_every: int = 1
    folder: Path | None = None
    heard: Callable[[int, Report], None] = field(default=lambda round, report: None)

    @cached_property
    def census(self) -> Census:
        """The clients; a client's place is its row in every matrix."""
        return self.executor.join()

    @property
    def clients(self) -> tuple[str, ...]:
        """Client ids by row."""
        return self.census.clients

    def splits_due(self, round: int, rounds: int) -> tuple[str, ...]:
        """Splits to score in a round: validation when its turn has come, the test only at the end."""
        last = round == rounds
        every = self.evaluate_every
        validation = every > 0 and (last or round % every == 0)
        return ("validation",) * validation + ("test",) * last


def run_rounds(
    federation: Federation,
    rounds: int,
    start: Checkpoint | None = None,
    journal: Journal | None = None,
) -> Iterator[RoundResult]:
    """FedBip and its relatives (arXiv 2509.12697): one `RoundResult` per round.

    Args:
        federation: Clients, method, executor.
        rounds: Number of rounds in all.
        start: Where an interrupted run stood; None: at the beginning.
        journal: Where the open round is kept, so that it can be gone on with; None keeps nothing.

    Raises:
        UserError: If fewer task vectors of a round can be used than participation.min_clients.
    """
    census, rule, executor = federation.census, federation.method.aggregator, federation.executor
    clients, n = census.clients, len(census.members)
    matrix = allocate(n, census.layout.size, census.initial.device)
    executor.tell(
        Begin(federation.method.name, None if federation.folder is None else str(federation.folder))
    )
    if start is None:
        reference = jnp.array(lend(census.initial))  # an own copy: the state outlives the tensor
        standing = Standing(rule.init(reference, n), Ledger.new(n), dict.fromkeys(clients, ""))
    else:
        standing = Standing(start.state, start.ledger, dict(start.memories))
        executor.plan((), start.capacity)
        if start.last_sent is not None:
            matrix.copy_(torch.from_numpy(start.last_sent))
    frozen = freeze(executor, standing.state)
    for round in range(standing.state.round + 1, rounds + 1):
        due = federation.splits_due(round, rounds)
        drawn = draw(clients, federation.participation, federation.seed, round)

        # 1. Client i receives its own aggregate, fine-tunes it and fills row i with its task vector.
        answers = _gather(federation, standing, matrix, drawn, round, due, frozen, journal)
        state, ledger, memories = _entered(federation, standing, drawn, answers)
        for row in drawn:
            if clients[row] not in answers.silent and clients[row] not in answers.used:
                matrix[row].zero_()

        # 2. The server compares the task vectors and mixes them, one aggregate per client.
        begin = time.perf_counter()
        groups = tuple(member.group for member in census.members)
        vectors = TaskVectors(
            matrix=lend(matrix),
            mask=jnp.array(ledger.age == 0),
            num_examples=jnp.array(ledger.examples, jnp.int32),
            age=jnp.array(ledger.age, jnp.int32),
            true_groups=groups if all(groups) else None,
        )
        state, aggregation = rule.update(state, vectors, census.layout)
        # The matrix is shared memory: nothing may be running on it when the next round fills it.
        jax.block_until_ready((state, aggregation))
        aggregate_seconds = time.perf_counter() - begin

        # 3. The new aggregates of all clients are scored as they will receive them.
        begin = time.perf_counter()
        standing = Standing(state, ledger, memories)
        frozen = freeze(executor, state)
        personal = borrow(state.personal)
        aggregated = {split: executor.score(clients, personal, split) for split in due}
        del personal
        reports = tuple(answers.used.values())
        evaluate_seconds = time.perf_counter() - begin + sum(r.seconds.evaluate for r in reports)

        sent = len(drawn) - len(answers.silent)
        up, down = rule.exchanged(census.layout), rule.received(census.layout, sent)
        yield RoundResult(
            round=round,
            state=state,
            vectors=matrix,
            similarity=np.asarray(aggregation.similarity),
            weights=np.asarray(aggregation.weights),
            reports=reports,
            aggregated=aggregated,
            seconds=Seconds(sum(r.seconds.train for r in reports), aggregate_seconds, evaluate_seconds),
            bytes_up=sent * up * BYTES_PER_PARAMETER,
            bytes_down=len(drawn) * down * BYTES_PER_PARAMETER,
            drawn=len(drawn),
            rejected=answers.rejected,
            ledger=ledger,
            memories=memories,
        )


class Standing(NamedTuple):
    """What the server holds between two rounds.

    Attributes:
        state: Of its rule.
        ledger: What it knows of each client.
        memories: Digests of what each client remembers.
    """

    state: ServerState
    ledger: Ledger
    memories: Mapping[str, str]


class Answers(NamedTuple):
    """What came of a round's work.

    Attributes:
        used: Reports whose task vectors can be used, by client, in the order of the rows.
        all: All reports.
        rejected: Why task vectors are not used, by client.
        silent: Who never answered.
    """

    used: Mapping[str, Report]
    all: Sequence[Report]
    rejected: Mapping[str, str]
    silent: frozenset[str]


def freeze(executor: Executor, state: ServerState) -> str:
    """Tell sites what the server adds to the frozen weights of all clients (FLoRA, FedEx); its digest."""
    residual = None if state.residual is None else borrow(state.residual)
    digest = ""
    if residual is not None:
        digest = hashlib.blake2b(residual.cpu().numpy().tobytes(), digest_size=16).hexdigest()
    executor.tell(Frozen(digest, residual))
    return digest


def _gather(
    federation: Federation,
    standing: Standing,
    matrix: Float[Tensor, "clients params"],
    drawn: Sequence[int],
    round: int,
    due: tuple[str, ...],
    frozen: str,
    journal: Journal | None,
) -> Answers:
    """Have the drawn clients train; whose task vectors can be used, and why the others' cannot."""
    clients, rule = federation.clients, federation.method.aggregator
    offers = rule.offer(standing.state)
    personal = borrow(standing.state.personal)
    work = [
        Work(
            client=clients[row],
            round=round,
            received=personal[row] if offers is None else borrow(offers),
            splits=due,
            objective=federation.method.objective,
            memory=standing.memories[clients[row]],
            frozen=frozen,
            run=federation.method.name,
            sends=federation.method.exchanges,
        )
        for row in drawn
    ]
    gathering = Gathering(
        federation.executor,
        isolate=federation.participation.on_client_error == "skip",
        timeout=federation.participation.timeout,
        heard=lambda report: federation.heard(round, report),
        journal=journal,
    )
    reports, rejected = gathering(work, {clients[row]: matrix[row] for row in drawn})
    silent = frozenset(client for client, reason in rejected.items() if reason == NEVER)
    rejected |= vet(reports, federation.participation.max_norm)
    for client, reason in rejected.items():
        _log.warning("round %d: '%s' is left out: %s", round, client, reason)
    by_client = {report.client: report for report in reports if report.client not in rejected}
    used = {clients[row]: by_client[clients[row]] for row in drawn if clients[row] in by_client}
    needed = federation.participation.min_clients
    if len(used) < min(needed, len(clients)):
        reasons = "; ".join(f"'{client}' {reason}" for client, reason in list(rejected.items())[:3])
        raise UserError(
            f"round {round}: {len(used)} task vectors can be used, participation.min_clients asks for "
            f"{needed} ({reasons}); the state after round {round - 1} is intact"
        )
    return Answers(used, reports, rejected, silent)


def _entered(
    federation: Federation, standing: Standing, drawn: Sequence[int], answers: Answers
) -> tuple[ServerState, Ledger, Mapping[str, str]]:
    """What the server holds after a round's answers, before it has aggregated them."""
    clients = federation.clients
    age, examples, sent = (values.copy() for values in standing.ledger)
    age[age >= 0] += 1
    for row in drawn:
        client = clients[row]
        if client in answers.silent:
            continue
        # What was not usable has taken the place of what the client had sent before.
        used = answers.used.get(client)
        age[row] = -1 if used is None else 0
        examples[row] = examples[row] if used is None else used.examples
        sent[row] += 1
    memories = {**standing.memories, **{report.client: report.memory for report in answers.all}}
    choices = {report.client: report.choice for report in answers.all if report.choice is not None}
    state = standing.state
    if choices:
        picked = jnp.array([choices.get(client, -1) for client in clients], jnp.int32)
        state = federation.method.aggregator.settle(state, picked)
    return state, Ledger(age, examples, sent), memories
