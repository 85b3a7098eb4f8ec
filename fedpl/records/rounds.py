"""What is said about a round: a line of metrics.jsonl."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.records.messages import Seconds
from fedpl.records.plain import Matrix, aside, optional
from fedpl.records.record import Record
from fedpl.records.results import Models
from fedpl.records.scores import Metric, Summary


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """Scores on a split.

    Attributes:
        aggregated: Statistics over all clients of θ̄ᵢ, the new aggregates.
        tuned: Over those that took part, of the models they use after local training.
        clients: Scores by client.
    """

    aggregated: Summary
    tuned: Summary
    clients: Mapping[str, Models]


@dataclass(frozen=True, kw_only=True)
class ByClient:
    """Numbers of all clients, in the order of the rows.

    Attributes:
        id: Their ids.
        train_loss: Mean training loss; null for those that took no part.
        age: Rounds since the task vector that the server holds; −1: it holds none.
        row_sum: Σₖ sᵢₖ, the normaliser.
        absolute_weight: Σₖ |pᵢₖ|.
        effective_neighbours: 1 / Σₖ pᵢₖ².
        self_weight: pᵢᵢ.
        halves: Mean cosine of the task vectors of two halves of its examples, over all its reports; null for
            those that never gave one.
    """

    id: tuple[str, ...]
    train_loss: tuple[float | None, ...]
    age: tuple[int, ...]
    row_sum: tuple[float, ...]
    absolute_weight: tuple[float, ...]
    effective_neighbours: tuple[float, ...]
    self_weight: tuple[float, ...]
    halves: tuple[float | None, ...] | None = optional()


@dataclass(frozen=True, eq=False, kw_only=True)
class RoundRecord(Record):
    """A round.

    Attributes:
        round: Its number, from 1.
        method: Name of the method.
        train_loss: Mean training loss of those that took part.
        steps: Optimiser steps of all.
        drawn: How many clients were asked to take part.
        participants: How many task vectors were used.
        bytes_up: Traffic from all clients to the server.
        bytes_down: Traffic from the server to all clients.
        seconds: Where the time went.
        rejected: Why task vectors were not used, by client.
        noticed: What is odd about those that were used, by client: copies, and lengths that were cut.
        epsilon: ε of differential privacy after the round, where there is any.
        validation: Scores on the validation split, where they were due.
        test: Scores on the test split; in the last round.
        clients: Numbers of all clients.
        metrics: What a score consists of; the summary says it once for all rounds.
    """

    round: int
    method: str
    train_loss: float
    steps: int
    drawn: int
    participants: int
    bytes_up: int
    bytes_down: int
    seconds: Seconds
    rejected: Mapping[str, str]
    noticed: Mapping[str, str] | None = optional()
    epsilon: float | None = optional()
    validation: SplitScores | None = optional()
    test: SplitScores | None = optional()
    clients: ByClient
    metrics: tuple[Metric, ...] = aside()


def mean_over_blocks(matrices: Float[np.ndarray, "blocks clients clients"]) -> Matrix:
    """The blocks' matrices as one; the matrix itself when the whole model is one block."""
    return matrices.mean(0)


def diagnostics(
    similarity: Matrix, weights: Matrix, rows: Sequence[int], clients: int
) -> dict[str, tuple[float, ...]]:
    """Per client: Σⱼ sᵢⱼ (the normaliser), Σₖ |pᵢₖ|, effective neighbours 1 / Σₖ pᵢₖ², self-weight pᵢᵢ.

    Args:
        similarity: sᵢⱼ.
        weights: pᵢₖ.
        rows: Which clients these are of; of the others each is like nobody and keeps what it has.
        clients: How many there are.
    """
    found = {
        "row_sum": (0.0, similarity.sum(1)),
        "absolute_weight": (1.0, np.abs(weights).sum(1)),
        "effective_neighbours": (1.0, 1 / np.square(weights).sum(1)),
        "self_weight": (1.0, np.diagonal(weights)),
    }
    whole = {name: np.full(clients, other, own.dtype) for name, (other, own) in found.items()}
    for name, (_, own) in found.items():
        whole[name][list(rows)] = own
    return {name: tuple(values.tolist()) for name, values in whole.items()}


def over_all(
    matrix: Float[np.ndarray, "some some"], rows: Sequence[int], clients: int, diagonal: float
) -> Matrix:
    """A matrix over some clients as one over all.

    Args:
        matrix: Over some.
        rows: Which.
        clients: How many there are in all.
        diagonal: Of the others, whose other values are 0: similarities have 0 there, weights 1.
    """
    if len(rows) == clients:
        return matrix
    whole = np.zeros((clients, clients), matrix.dtype)
    np.fill_diagonal(whole, diagonal)
    whole[np.ix_(rows, rows)] = matrix
    return whole


def read_rounds(path: Path) -> tuple[RoundRecord, ...]:
    """All rounds of a ``metrics.jsonl``.

    Raises:
        UserError: If it cannot be read or a line is not a round.
    """
    return tuple(each_round(path))


def each_round(path: Path) -> Iterator[RoundRecord]:
    """`read_rounds` one by one: of many clients a round takes tens of megabytes.

    Raises:
        UserError: As there, when a round is asked for.
    """
    try:
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            yield RoundRecord.from_json(json.loads(line), f"{path}:{i}")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
