"""Who takes part in a round: a function of the seed, the round and the clients' names, nothing else."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from fedpl.conditions import FaultsConfig, ParticipationConfig
from fedpl.randomness import derive_seed

_RANGE = 2**63


class Cohort(NamedTuple):
    """The clients of a round, as rows.

    Attributes:
        drawn: Who was asked, in ascending order.
        lost: Those of them who never answer.
        late: Those of them whose answer comes too late.
    """

    drawn: tuple[int, ...]
    lost: frozenset[int] = frozenset()
    late: frozenset[int] = frozenset()


def draw(
    clients: Sequence[str], participation: ParticipationConfig, faults: FaultsConfig, seed: int, round: int
) -> Cohort:
    """The cohort of a round: a random subset of fixed size, and the simulated faults within it.

    Args:
        clients: Client ids in the order of the rows; the order has no influence on who is drawn.
        participation: How many take part.
        faults: Chances of getting lost and of being late.
        seed: The run's seed.
        round: Number of the round, from 1.
    """
    drawn = tuple(sorted(_chosen(clients, share_of(clients, participation), seed, "sampling", round)))

    def unlucky(chance: float, stage: str) -> frozenset[int]:
        return frozenset(
            row for row in drawn if derive_seed(seed, stage, round, clients[row]) < chance * _RANGE
        )

    lost = unlucky(faults.lost, "lost")
    return Cohort(drawn, lost, unlucky(faults.late, "late") - lost)


def share_of(clients: Sequence[str], participation: ParticipationConfig) -> int:
    """How many clients a round asks."""
    wanted = math.floor(participation.fraction * len(clients) + 0.5)
    return min(max(wanted, participation.min_clients, 1), len(clients))


def hostile_rows(clients: Sequence[str], faults: FaultsConfig, seed: int) -> frozenset[int]:
    """The clients that attack: the same in every round."""
    count = math.floor(faults.hostile * len(clients) + 0.5)
    return frozenset(_chosen(clients, count, seed, "hostile", 0))


def _chosen(clients: Sequence[str], count: int, seed: int, stage: str, round: int) -> list[int]:
    """Rows of the clients with the smallest hashes: every subset of this size is as likely as any other."""
    rank = [(derive_seed(seed, stage, round, client), client) for client in clients]
    return sorted(range(len(clients)), key=rank.__getitem__)[:count]
