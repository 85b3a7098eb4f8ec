"""One call of onboarding: every newcomer joins, is scored on its own data, and gets its adapter."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch

from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.files import held, move, quoted, writing
from fedpl.model.memory import free_memory
from fedpl.objectives import APFL, Ditto, FedDPA
from fedpl.onboard.joining import SPLITS, Joined, Joining, Tuned
from fedpl.onboard.past import Past
from fedpl.records.messages import Census, Deliver, Member
from fedpl.records.newcomer import Choices, Newcomer
from fedpl.runs.cards import describe_newcomer
from fedpl.runs.prepared import Prepared, prepare
from fedpl.server.state import ServerState
from fedpl.site.privacy import epsilon
from fedpl.versions import versions

Start: TypeAlias = Literal["base", "nearest"]
Served: TypeAlias = Literal["aggregated", "tuned", "local"]


def onboard(
    past: Past,
    data: FederatedData,
    start: Start = "base",
    rounds: int | None = None,
    serve: Served = "aggregated",
) -> tuple[Newcomer, ...]:
    """Let newcomers join a finished run, each by itself, and write their adapters under ``newcomers/``.

    Nothing else of the run is changed, and no other newcomer's data have an influence: the result is a
    function of the run, the newcomer's name and its data.

    Args:
        past: The run.
        data: The newcomers, whose classes are the run's; a client of the run among them takes its own place,
            with the data that are given here alone.
        start: base: from θ₀ through the run's rounds; nearest: one look at the first, then on from the last
            aggregates of those that the run's rule gives weight to.
        rounds: Of the run that are gone through; None: all of them, for nearest the first.
        serve: What the adapter holds: the aggregate as received (as the run's own adapters do), tuned by one
            more round of local training, or trained alone from θ₀.

    Raises:
        UserError: If a setting does not fit, or training fails; adapters of newcomers before that one are
            written.
    """
    done = len(past.recording.rounds)
    rounds = (done if start == "base" else 1) if rounds is None else rounds
    if not 1 <= rounds <= done:
        raise UserError(f"rounds: from 1 to {done}, the rounds of {past.folder.path}, got {rounds}")
    if serve != "aggregated" and isinstance(past.config.method.objective, Ditto | APFL | FedDPA):
        raise _personal(past)
    last = _last_state(past) if start == "nearest" else None
    config = past.settings_for(data)
    prepared = prepare(config, data)
    census = prepared.executor.join()
    past.refuse_another_start(census)
    _check_memory(past, census)
    target = past.folder.sub("newcomers")
    found = []
    with held(target):
        # Folders of calls that were ended by force.
        for left in target.glob(".*.part"):
            shutil.rmtree(left)
        for member in census.members:
            found.append(_one(past, prepared, member, start, rounds, serve, last, target))
    return tuple(found)


def _one(
    past: Past,
    prepared: Prepared,
    member: Member,
    start: Start,
    rounds: int,
    serve: Served,
    last: ServerState | None,
    target: Path,
) -> Newcomer:
    client, privacy = member.client, past.config.privacy
    with tempfile.TemporaryDirectory(dir=target, prefix=".", suffix=".part") as work:
        disk = Path(work) if past.config.server.on_disk else None
        joining = Joining(past, prepared.executor, disk)
        joined = joining.join(client, rounds, last)
        scores = {split: joining.score(client, joined, split) for split in SPLITS}
        # A schedule over the whole run has a rate for its rounds alone.
        more = rounds if past.config.client.rates.needs_rounds else rounds + 1
        tuned = joining.tune(client, joined, more)
        alone = joining.alone(client, rounds + 1)
        known = {
            split: Choices(
                local=alone.scores[split],
                aggregated=own,
                tuned=tuned.scores[split],
                floor=member.floor if split == "test" else None,
            )
            for split, own in scores.items()
            if own is not None
        }
        newcomer = Newcomer(
            client=client,
            update=client in past.clients,
            method=past.config.name,
            start=start,
            rounds=rounds,
            served=serve,
            examples=member.examples,
            weights=_by_client(past, client, joined.weights),
            similarity=_by_client(past, client, joined.similarity),
            metrics=joining.census.metrics,
            scores=known,
            epsilon=None if privacy.clip is None else epsilon(privacy, rounds),
            data=member.origin,
            versions=versions(),
            begun=past.folder.origin.begun if past.folder.knows_origin else None,
        )
        _write(past, joining, newcomer, {"aggregated": joined, "tuned": tuned, "local": alone}, target)
    return newcomer


def _write(
    past: Past, joining: Joining, newcomer: Newcomer, models: Mapping[str, Joined | Tuned], target: Path
) -> None:
    """The adapter's folder, which takes the place of an earlier one, whole or not at all."""
    joined, chosen = models["aggregated"], models[newcomer.served]
    assert isinstance(joined, Joined)
    vector = chosen.aggregate if isinstance(chosen, Joined) else chosen.model
    residual = None if newcomer.served == "local" else joined.residual
    joining.freeze(residual)
    tuned, name = models["tuned"], quoted(newcomer.client)
    with tempfile.TemporaryDirectory(dir=target, prefix=".", suffix=".part") as folder, writing(target):
        objective, memories = past.config.method.objective, {newcomer.client: tuned.memory}
        joining.executor.tell(
            Deliver(folder, (newcomer.client,), vector[None], objective, memories, residual)
        )
        new = Path(folder) / "adapters" / name
        if (personal := Path(folder) / "personal" / name).exists():
            if newcomer.served != "aggregated":
                raise _personal(past)
            personal.rename(new / "personal")
        if (answers := Path(folder) / "predictions" / f"{name}.jsonl").exists():
            answers.rename(new / "predictions.jsonl")
        newcomer.write(new)
        describe_newcomer(past.config, joining.census, newcomer, new, past.folder.path)
        if (old := target / name).exists():
            old.rename(Path(folder) / "old")
        move(new, old)


def _personal(past: Past) -> UserError:
    return UserError(
        f"serve: clients of '{past.config.name}' use a personal model, which is written beside the aggregate "
        f"anyway (personal/); leave it at aggregated"
    )


def _by_client(past: Past, client: str, values: np.ndarray) -> dict[str, float]:
    names = past.clients if client in past.clients else (*past.clients, client)
    return dict(zip(names, values.mean(0).tolist(), strict=True))


def _last_state(past: Past) -> ServerState:
    """The run's last state, with its aggregates in their files.

    Raises:
        UserError: If it is not there.
    """
    found = past.folder.method().checkpoints.state()
    if found is None or found.round != past.summary.rounds:
        raise UserError(f"{past.folder.path} holds no intact state of its last round; take --start base")
    return found


def _check_memory(past: Past, census: Census) -> None:
    if past.config.server.on_disk:
        return
    clients, size, device = len(past.clients) + 1, census.layout.size, census.initial.device
    need, free = 2 * clients * size * 4, free_memory(device)
    if need > free:
        raise UserError(
            f"the task vectors and aggregates of {clients:,} clients with {size:,} trainable parameters each "
            f"take {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free on {torch.device(device)}"
        )
