"""Asking clients to train, and what the server makes of their answers before it aggregates them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fedpl.errors import UserError
from fedpl.executors.protocol import Executor
from fedpl.interop import borrow
from fedpl.records.messages import Frozen, Report, Work
from fedpl.rounds.checkpoints import Ledger
from fedpl.rounds.federation import Federation
from fedpl.rounds.gathering import NEVER, Gathering
from fedpl.rounds.journal import Journal
from fedpl.rounds.vetting import alike, vet
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
    residual = None if state.residual is None else borrow(state.residual)
    digest = ""
    if residual is not None:
        digest = hashlib.blake2b(residual.cpu().numpy().tobytes(), digest_size=16).hexdigest()
    executor.tell(Frozen(digest, residual))
    return digest


def gather(
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
    return Answers(used, reports, rejected, silent, alike(tuple(used.values())))


def odd(
    federation: Federation, round: int, answers: Answers, kept: Float[np.ndarray, "clients"]
) -> Mapping[str, str]:
    """What is odd about the task vectors that were used, by client; said in the log.

    Args:
        federation: The clients.
        round: Its number.
        answers: What came of the round's work.
        kept: By which factor the server shortened each task vector.
    """
    share = dict(zip(federation.clients, kept.tolist(), strict=True))
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
        picked = np.array([choices.get(client, -1) for client in clients], np.int32)
        state = federation.method.aggregator.settle(state, picked)
    return state, Ledger(age, examples, sent), memories
