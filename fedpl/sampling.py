"""Who takes part in a round: a function of the seed, the round and the clients' names, nothing else."""

import math
from collections.abc import Sequence

from fedpl.conditions import FaultsConfig, ParticipationConfig
from fedpl.randomness import derive_seed

_RANGE = 2**63


def draw(
    clients: Sequence[str], participation: ParticipationConfig, seed: int, round: int
) -> tuple[int, ...]:
    """The cohort of a round, as ascending rows: a random subset of fixed size.

    Args:
        clients: Client ids in the order of the rows; the order has no influence on who is drawn.
        participation: How many take part.
        seed: The run's seed.
        round: Number of the round, from 1.
    """
    return tuple(sorted(_chosen(clients, share_of(clients, participation), seed, "sampling", round)))


def share_of(clients: Sequence[str], participation: ParticipationConfig) -> int:
    """How many clients a round asks."""
    wanted = math.floor(participation.fraction * len(clients) + 0.5)
    return min(max(wanted, participation.min_clients, 1), len(clients))


def unlucky(chance: float, stage: str, seed: int, round: int, client: str) -> bool:
    """Whether something of this chance befalls a client in a round."""
    return derive_seed(seed, stage, round, client) < chance * _RANGE


def hostile_clients(clients: Sequence[str], faults: FaultsConfig, seed: int) -> frozenset[str]:
    """The clients that attack: the same in every round."""
    count = math.floor(faults.hostile * len(clients) + 0.5)
    return frozenset(clients[row] for row in _chosen(clients, count, seed, "hostile", 0))


def _chosen(clients: Sequence[str], count: int, seed: int, stage: str, round: int) -> list[int]:
    """Rows of the clients with the smallest hashes: every subset of this size is as likely as any other."""
    rank = [(derive_seed(seed, stage, round, client), client) for client in clients]
    return sorted(range(len(clients)), key=rank.__getitem__)[:count]
