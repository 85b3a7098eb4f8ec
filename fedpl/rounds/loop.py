"""The rounds of a federated run, as a generator: draw, receive, train, vet, compare, mix, score."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fedpl.interop import allocate, borrow, copied, lend
from fedpl.records.messages import Begin, Report, Seconds
from fedpl.records.scores import Scores
from fedpl.rounds.asking import Standing, entered, freeze, gather, odd
from fedpl.rounds.checkpoints import Checkpoint, Ledger
from fedpl.rounds.federation import Federation
from fedpl.rounds.holding import Holding, scored
from fedpl.rounds.journal import Journal
from fedpl.sampling import draw
from fedpl.server.state import ServerState, TaskVectors

BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class RoundResult:
    """Everything a round produced.

    Attributes:
        round: Number of the round, from 1.
        state: The server's state after it; valid until the next round is asked for.
        rows: Which clients the rows of the matrices here are: those that were drawn, or all where the rule
            looks at absent ones too.
        vectors: The task vectors, in memory that the next round overwrites; rows of clients that did not
            take part hold what they last sent, or zero.
        similarity: sᵢₖ per block.
        weights: pᵢₖ per block.
        reports: What each client reported whose task vector was used, in the order of the rows.
        aggregated: Scores of the new θ̄ᵢ of all clients by split and client; the splits that were due.
        seconds: Where the time went.
        bytes_up: Traffic from all clients to the server.
        bytes_down: Traffic from the server to all clients.
        drawn: How many clients were asked to take part.
        rejected: Why task vectors were not used, by client.
        noticed: What is odd about those that were used, by client.
        ledger: What the server knows of each client.
        memories: Digests of what each client remembers.
        settle: To be called for each task vector that is looked at: on disk it need not stay in memory.
    """

    round: int
    state: ServerState
    rows: tuple[int, ...]
    vectors: Float[Any, "rows params"]
    similarity: Float[np.ndarray, "blocks rows rows"]
    weights: Float[np.ndarray, "blocks rows rows"]
    reports: tuple[Report, ...]
    aggregated: Mapping[str, Mapping[str, Scores]]
    seconds: Seconds
    bytes_up: int
    bytes_down: int
    drawn: int
    rejected: Mapping[str, str]
    noticed: Mapping[str, str]
    ledger: Ledger
    memories: Mapping[str, str]
    settle: Callable[[], None] = lambda: None

    def tuned(self, split: str) -> dict[str, Scores]:
        """Scores of the tuned θᵢ of those who took part, by client; empty if the split was not due."""
        return {report.client: report.scores[split] for report in self.reports if split in report.scores}


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
    by_client = rule.receive.by_client or ()
    clients, n = census.clients, len(census.members)
    room, initial = federation.room, census.initial
    on_disk = room is not None
    if room is None:
        matrix = allocate(federation.seats, census.layout.size, initial)
    else:
        matrix = borrow(room.vectors, initial)
    executor.tell(
        Begin(federation.method.name, None if federation.folder is None else str(federation.folder))
    )
    if start is None:
        state = rule.start(copied(initial, on_disk), n)
        if room is not None:
            beginning: Any = room.begin(state.models)
            state = state._replace(personal=beginning)
        standing = Standing(state, Ledger.new(n), dict.fromkeys(clients, ""))
    else:
        standing = Standing(start.state, start.ledger, dict(start.memories))
        executor.plan((), start.capacity)
        if start.last_sent is not None and (room is None or start.last_sent is not room.vectors):
            matrix[:] = borrow(start.last_sent, initial)
    del start  # what the rounds replace is not held beside
    frozen = freeze(executor, standing.state)
    for round in range(standing.state.round + 1, rounds + 1):
        due = federation.splits_due(round, rounds)
        drawn = draw(clients, federation.participation, federation.seed, round)
        rows = drawn if federation.only_present else tuple(range(n))
        place = {row: i for i, row in enumerate(rows)}
        lines = {row: matrix[place[row]] for row in drawn}

        # 1. Client i receives its own aggregate, fine-tunes it and fills row i with its task vector.
        answers = gather(federation, standing, lines, round, due, frozen, journal)
        standing, choices = entered(federation, standing, drawn, answers)
        state, ledger, memories = standing
        settle = federation.settling(state.models)
        for row, line in lines.items():
            stays = clients[row] in answers.silent and not federation.only_present  # what it sent before
            if clients[row] not in answers.used and not stays:
                line[:] = 0
                settle()

        # 2. The server compares the task vectors and mixes them, one aggregate per client.
        begin = time.perf_counter()
        those = list(rows)
        age, examples = ledger.age[those], ledger.examples[those]
        groups = tuple(census.members[row].group for row in rows)
        vectors = TaskVectors(
            matrix=lend(matrix[: len(rows)], on_disk),
            mask=jnp.array(age == 0),
            num_examples=jnp.array(examples, jnp.int32),
            age=jnp.array(age, jnp.int32),
            true_groups=groups if all(groups) else None,
            halves=jnp.array(ledger.agreement[those], jnp.float32) if rule.weighting.halves else None,
        )
        holding = Holding(state.models, round, rows, rule.one_model(census.layout), room, initial)
        own = state.among(rows, holding.given(), by_client)
        if choices is not None:
            own = rule.settle(own, choices[those])
        new, aggregation = rule.update(own, vectors, census.layout)
        # The matrix is shared memory: nothing may be running on it when the next round fills it.
        jax.block_until_ready((new, aggregation))
        state = new.joined(state, rows, holding.after(new.personal), by_client)
        del holding, own, new  # nor what has died held beside what lives
        aggregate_seconds = time.perf_counter() - begin

        # 3. The new aggregates are scored as clients will receive them.
        begin = time.perf_counter()
        standing = Standing(state, ledger, memories)
        frozen = freeze(executor, state)
        asked = federation.scored(drawn, round == rounds)
        aggregated = {split: scored(executor, clients, state.models, asked, split, room) for split in due}
        reports = tuple(answers.used.values())
        evaluate_seconds = time.perf_counter() - begin + sum(r.seconds.evaluate for r in reports)

        sent = len(drawn) - len(answers.silent)
        up, down = rule.exchanged(census.layout), rule.received(census.layout, sent)
        yield RoundResult(
            round=round,
            state=state,
            rows=rows,
            vectors=matrix[: len(rows)],
            similarity=np.asarray(aggregation.similarity),
            weights=np.asarray(aggregation.weights),
            reports=reports,
            aggregated=aggregated,
            seconds=Seconds(sum(r.seconds.train for r in reports), aggregate_seconds, evaluate_seconds),
            bytes_up=sent * up * BYTES_PER_PARAMETER,
            bytes_down=len(drawn) * down * BYTES_PER_PARAMETER,
            drawn=len(drawn),
            rejected=answers.rejected,
            noticed=odd([clients[row] for row in rows], round, answers, np.asarray(aggregation.kept)),
            ledger=ledger,
            memories=memories,
            settle=settle,
        )
