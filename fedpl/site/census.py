"""What a site tells when it joins: its clients, layout, floors, and names for what they have."""

import hashlib
import json
from collections.abc import Sequence

from fedpl.data import ClientData, FederatedData, Pairs
from fedpl.records.messages import Census, Member
from fedpl.records.scores import best
from fedpl.training.worker import Worker


def digest_of(client: ClientData, classes: Sequence[str]) -> str:
    """A name for all that a client has: texts and labels of every split, id, group, names of the classes."""
    splits = (split.content for split in (client.train, client.validation, client.test))
    content = json.dumps([[client.id, *splits, client.group], classes]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def census(data: FederatedData, worker: Worker) -> Census:
    """What a site tells when it joins."""
    foundation, task = worker.backend.foundation, worker.partitions.task
    scored = [client.id for client in data.clients if len(client.test)]
    start = foundation.initial()
    zero = {}
    if task.zero_shot and scored:  # θ₀ answers as the frozen model does
        models = start.expand(len(scored), -1)
        zero = dict(zip(scored, worker.score(scored, models, "test"), strict=True))
    members = []
    for client in data.clients:
        floor = None
        if len(client.test):
            known = (worker.partitions.examples[client.id, split] for split in ("train", "test"))
            blind = task.floor(client, *known)
            if task.writes is not None:
                blind = {**task.floor_decoded(client), **blind}
            floor = best((blind, *filter(None, (zero.get(client.id),))), task.metrics[0])
        origin = digest_of(client, data.classes)
        members.append(Member(client.id, len(client.train), floor, origin, client.group))
    hardware = foundation.hardware
    return Census(
        tuple(members),
        foundation.layout,
        start,
        task.metrics,
        data.classes,
        f"{hardware.device}, {hardware.precision}",
        any(isinstance(client.train, Pairs) and bool(client.train.seconds) for client in data.clients),
    )
