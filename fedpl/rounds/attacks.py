"""Hostile clients: what they do to their data and to their task vectors, for studies of the server's rule."""

import dataclasses
from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.conditions import FaultsConfig
from fedpl.config import Config
from fedpl.data import FederatedData, Split
from fedpl.randomness import derive_seed
from fedpl.rounds.sampling import hostile_rows


def clients_of(config: Config) -> FederatedData:
    """The data of a run as its clients see them: those who attack by false labels have them."""
    data = config.data.load(config.seed)
    if config.faults.attack != "label_flip":
        return data
    return flip_labels(data, hostile_rows(data.ids, config.faults, config.seed))


def flip_labels(data: FederatedData, hostile: Collection[int]) -> FederatedData:
    """The same clients, the hostile ones with their training labels moved on by one class.

    Validation and test data stay as they are: they say what a client wants to predict.

    Args:
        data: All clients.
        hostile: Places of the hostile ones.
    """
    classes = len(data.classes)

    def flipped(split: Split) -> Split:
        return dataclasses.replace(split, labels=tuple((label + 1) % classes for label in split.labels))

    clients = tuple(
        dataclasses.replace(client, train=flipped(client.train)) if place in hostile else client
        for place, client in enumerate(data.clients)
    )
    return dataclasses.replace(data, clients=clients)


def attack(
    matrix: Float[Tensor, "clients params"],
    clients: tuple[str, ...],
    hostile: Collection[int],
    present: Collection[int],
    faults: FaultsConfig,
    seed: int,
    round: int,
) -> None:
    """Put what hostile clients send in place of their task vectors.

    Sign flip, scaling and Gaussian noise as in Li et al. (2019), mimic as in Karimireddy et al. (2022):
    all attackers send the task vector of one honest client, which is thereby counted many times over. They
    know it: attackers that see everything are the case to be prepared for.

    Args:
        matrix: Task vectors; rows of hostile clients are changed in place.
        clients: Client ids, in the order of the rows.
        hostile: Rows of the attackers.
        present: Rows that were filled in this round.
        faults: Kind and strength of the attack.
        seed: The run's seed.
        round: Number of the round.
    """
    honest = [row for row in present if row not in hostile]
    for row in sorted(set(present) & set(hostile)):
        if faults.attack == "sign_flip":
            matrix[row] *= -faults.strength
        elif faults.attack == "scale":
            matrix[row] *= faults.strength
        elif faults.attack == "gaussian":
            stream = torch.Generator().manual_seed(derive_seed(seed, "attack", round, clients[row]))
            noise = torch.randn(matrix.shape[1], generator=stream).to(matrix.device)
            matrix[row] = noise * (faults.strength * matrix[row].norm() / noise.norm())
        elif faults.attack == "mimic" and honest:
            copied = min(honest, key=lambda row: derive_seed(seed, "mimic", 0, clients[row]))
            matrix[row] = faults.strength * matrix[copied]
