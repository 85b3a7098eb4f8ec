"""Simulated faults, for studies: clients that get lost, are late or attack, as functions of the seed."""

import dataclasses
from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.conditions import FaultsConfig
from fedpl.data import FederatedData, Split
from fedpl.randomness import derive_seed
from fedpl.sampling import hostile_clients, unlucky


def with_false_labels(data: FederatedData, faults: FaultsConfig, seed: int) -> FederatedData:
    """The data as clients see them: those who attack by false labels have them for training.

    Validation and test data stay as they are: they say what a client wants to predict.

    Args:
        data: All clients.
        faults: Who attacks, and how.
        seed: The run's seed.
    """
    if faults.attack != "label_flip":
        return data
    hostile = hostile_clients(data.ids, faults, seed)
    classes = len(data.classes)

    def flipped(split: Split) -> Split:
        return dataclasses.replace(split, labels=tuple((label + 1) % classes for label in split.labels))

    clients = tuple(
        dataclasses.replace(client, train=flipped(client.train)) if client.id in hostile else client
        for client in data.clients
    )
    return dataclasses.replace(data, clients=clients)


class Faults:
    """What goes wrong at a site.

    Args:
        clients: All clients of the federation.
        settings: Chances and attack.
        seed: The run's seed.
    """

    def __init__(self, clients: Sequence[str], settings: FaultsConfig, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self.hostile = hostile_clients(clients, settings, seed)

    def lost(self, client: str, round: int) -> bool:
        """Whether a client never answers."""
        return unlucky(self.settings.lost, "lost", self.seed, round, client)

    def late(self, client: str, round: int) -> bool:
        """Whether its answer comes after the round has closed."""
        return unlucky(self.settings.late, "late", self.seed, round, client)

    def company(self, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        """Groups in which those who look at honest clients' task vectors train together with them."""
        present = [client for members in groups for client in members]
        victim = self._victim(present)
        if self.settings.attack in ("align", "collude") and self.hostile.intersection(present):
            return [sorted(present)]
        if self.settings.attack != "mimic" or victim is None:
            return [list(members) for members in groups]
        copying = [client for client in present if client in self.hostile]
        kept = [[client for client in members if client not in self.hostile] for members in groups]
        return [[*members, *copying] if victim in members else members for members in kept if members]

    def attack(self, rows: dict[str, Float[Tensor, "params"]], round: int) -> None:
        """Put what hostile clients send in place of their task vectors.

        Sign flip, scaling and Gaussian noise as in Li et al. (2019), mimic as in Karimireddy et al. (2022):
        all attackers send the task vector of one honest client, which is thereby counted many times over.
        Colluders send the honest mean reversed, so that inner products with it are negative (Xie et al.,
        2019); aligned ones (ours) look alike to one client, at a cosine of about 0.7, and pull it away from
        all others. They know what others send: attackers that see everything are the case to be prepared for.

        Args:
            rows: Task vectors of clients that trained together; hostile clients' are changed in place.
            round: Number of the round.
        """
        kind, strength = self.settings.attack, self.settings.strength
        victim = self._victim(rows)
        honest = [row for client, row in sorted(rows.items()) if client not in self.hostile]
        mean = torch.stack(honest).mean(0) if honest and kind in ("align", "collude") else torch.empty(0)
        for client in sorted(self.hostile.intersection(rows)):
            row = rows[client]
            if kind == "sign_flip":
                row *= -strength
            elif kind == "scale":
                row *= strength
            elif kind == "gaussian":
                stream = torch.Generator().manual_seed(derive_seed(self.seed, "attack", round, client))
                noise = torch.randn(len(row), generator=stream).to(row.device)
                row.copy_(noise * (strength * row.norm() / noise.norm()))
            elif kind == "mimic" and victim is not None:
                row.copy_(strength * rows[victim])
            elif kind == "align" and victim is not None:
                row.copy_(strength * _halfway(rows[victim], -mean))
            elif kind == "collude" and victim is not None:
                row.copy_(-strength * mean)

    def _victim(self, present: Collection[str]) -> str | None:
        """The honest client whom all who copy one copy."""
        honest = [client for client in present if client not in self.hostile]
        return min(honest, key=lambda client: derive_seed(self.seed, "mimic", 0, client), default=None)


def _halfway(vector: Float[Tensor, "params"], other: Float[Tensor, "params"]) -> Float[Tensor, "params"]:
    """The first vector turned by 45° towards what of the other one is orthogonal to it; as long as before."""
    size = vector.norm()
    if not size > 0:
        return vector
    across = other - vector * (other @ vector / size**2)
    if not across.norm() > 0:
        return vector
    return (vector + across * (size / across.norm())) / 2**0.5
