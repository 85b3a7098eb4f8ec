"""Asking clients to train, and what the server makes of their answers before it aggregates them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fedpl.errors import UserError
from fedpl.executors.protocol import Executor
from fedpl.interop import borrow, on_host
from fedpl.records.messages import Frozen, Report, Work
from fedpl.rounds.checkpoints import Ledger
from fedpl.rounds.federation import Federation
from fedpl.rounds.gathering import NEVER, Gathering
from fedpl.rounds.holding import lines as held
from fedpl.rounds.journal import Journal
from fedpl.rounds.vetting import TOGETHER, alike, vet
from fedpl.server.state import ServerState

_log = logging.getLogger(__name__)


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
        noticed: What is odd about task vectors that are used, by client.
    """

    used: Mapping[str, Report]
    all: Sequence[Report]
    rejected: Mapping[str, str]
    silent: frozenset[str]
    noticed: Mapping[str, str]


def freeze(executor: Executor, state: ServerState) -> str:
    """Tell sites what the server adds to the frozen weights of all clients (FLoRA, FedEx); its digest."""
    residual, digest = None, ""
    if state.residual is not None:
        residual = borrow(state.residual, executor.join().initial)
        digest = hashlib.blake2b(on_host(residual).tobytes(), digest_size=16).hexdigest()
    executor.tell(Frozen(digest, residual))
    return digest


def gather(
    federation: Federation,
    standing: Standing,
    lines: Mapping[int, Float[Any, "params"]],
    round: int,
    due: tuple[str, ...],
    frozen: str,
    journal: Journal | None,
) -> Answers:
    """Have clients train; whose task vectors can be used, and why the others' cannot.

    Args:
        federation: The clients.
        standing: What the server holds.
        lines: Where the task vectors of the drawn clients belong, by number, in ascending order.
        round: Number of the round.
        due: Splits to score.
        frozen: Digest of what has been added to the frozen weights.
        journal: Where answers are kept; None keeps nothing.

    Raises:
        UserError: If fewer task vectors can be used than participation.min_clients.
    """
    clients, rule, room = federation.clients, federation.method.aggregator, federation.room
    settle = federation.settling(standing.state.models)
    offers, layout, like = rule.offer(standing.state), federation.census.layout, federation.census.initial
    received = held(standing.state.models, list(lines), like) if offers is None else {}
    work = [
        Work(
            client=clients[row],
            round=round,
            received=received[row] if offers is None else borrow(offers, like),
            splits=due,
            objective=federation.method.objective,
            memory=standing.memories[clients[row]],
            frozen=frozen,
            run=federation.method.name,
            sends=federation.method.exchanges,
            halves=rule.halves(layout) if standing.ledger.told[row] < rule.weighting.halves else None,
        )
        for row in lines
    ]
    gathering = Gathering(
        federation.executor,
        isolate=federation.participation.on_client_error == "skip",
        timeout=federation.participation.timeout,
        heard=lambda report: federation.heard(round, report),
        journal=journal,
        settle=settle,
    )
    reports, rejected = gathering(work, {clients[row]: line for row, line in lines.items()})
    silent = frozenset(client for client, reason in rejected.items() if reason == NEVER)
    rejected |= vet(reports, federation.participation.max_norm, settle)
    for client, reason in rejected.items():
        _log.warning("round %d: '%s' is left out: %s", round, client, reason)
    by_client = {report.client: report for report in reports if report.client not in rejected}
    used = {clients[row]: by_client[clients[row]] for row in lines if clients[row] in by_client}
    needed = federation.participation.min_clients
    if len(used) < min(needed, len(clients)):
        reasons = "; ".join(f"'{client}' {reason}" for client, reason in list(rejected.items())[:3])
        raise UserError(
            f"round {round}: {len(used)} task vectors can be used, participation.min_clients asks for "
            f"{needed} ({reasons}); the state after round {round - 1} is intact"
        )
    return Answers(
        used,
        reports,
        rejected,
        silent,
        alike(tuple(used.values()), settle, TOGETHER if room is None else room.panel),
    )


def odd(
    clients: Sequence[str], round: int, answers: Answers, kept: Float[np.ndarray, "clients"]
) -> Mapping[str, str]:
    """What is odd about the task vectors that were used, by client; said in the log.

    Args:
        clients: Whose task vectors they are.
        round: Its number.
        answers: What came of the round's work.
        kept: By which factor the server shortened each task vector.
    """
    share = dict(zip(clients, kept.tolist(), strict=True))
    cut = {
        client: f"its task vector was cut to {share[client]:.2g} of its length (aggregator.norm_bound)"
        for client in answers.used
        if share[client] < 1
    }
    found = {
        client: "; ".join(reason[client] for reason in (answers.noticed, cut) if client in reason)
        for client in answers.used
        if client in answers.noticed or client in cut
    }
    for client, reason in found.items():
        much = client in answers.noticed or share[client] < 0.5
        _log.log(logging.WARNING if much else logging.INFO, "round %d: '%s' %s", round, client, reason)
    return found


def entered(
    federation: Federation, standing: Standing, drawn: Sequence[int], answers: Answers
) -> tuple[Standing, Int[np.ndarray, "clients"] | None]:
    """What the server holds after a round's answers, before it has aggregated them.

    Returns:
        It, and which of several models each client chose, −1 for none; None: there was only one.
    """
    clients = federation.clients
    age, examples, sent, told, halves = (values.copy() for values in standing.ledger)
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
        if used is not None and used.halves is not None:
            told[row], halves[row] = told[row] + 1, halves[row] + used.halves
    memories = {**standing.memories, **{report.client: report.memory for report in answers.all}}
    choices = {report.client: report.choice for report in answers.all if report.choice is not None}
    picked = np.array([choices.get(client, -1) for client in clients], np.int32) if choices else None
    return Standing(standing.state, Ledger(age, examples, sent, told, halves), memories), picked
