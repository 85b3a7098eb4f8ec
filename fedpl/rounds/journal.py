"""What the clients of an open round have delivered, on disk before the round is closed.

A round that is cut off goes on where it stopped: groups of clients that trained together are read back whole,
the others are trained in the same company as they would have been, so that every bit is the same.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.errors import UserError
from fedpl.files import read_tensors, write_tensors, writing
from fedpl.rounds.executor import ClientUpdate
from fedpl.scores import Scores

_log = logging.getLogger(__name__)
ClientStates = dict[str, dict[str, Tensor]]


class Plan(NamedTuple):
    """How a round is trained.

    Attributes:
        groups: Ids of the clients that train together, group by group.
        capacity: What the executor had chosen for the machine, see `Executor.capacity`.
    """

    groups: list[list[str]]
    capacity: dict[str, int]


class Delivery(NamedTuple):
    """What a group of clients delivered.

    Attributes:
        updates: Their reports; the task vectors are in the matrix.
        errors: Why clients delivered nothing, by client.
        states: What the clients keep to themselves between rounds.
    """

    updates: tuple[ClientUpdate, ...]
    errors: dict[str, str]
    states: ClientStates


class Journal:
    """The open round of one method.

    Args:
        folder: Where it is kept; made when the first round opens.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, round: int, plan: Plan) -> Plan:
        """Start a round, or go on with it if an earlier process started it for the same clients.

        Args:
            round: Number of the round.
            plan: How to train it, unless it has been started.

        Returns:
            The plan that holds.
        """
        started = self._started(round)
        if started is not None and _members(started) == _members(plan):
            return started
        self.close()
        with writing(self.folder):
            self.folder.mkdir()
        content = {"round": round, "groups": plan.groups, "capacity": plan.capacity}
        write_tensors(self._plan, {}, {"plan": json.dumps(content)})
        return plan

    def read(self, group: int, size: int) -> tuple[Delivery, Float[np.ndarray, "members params"]] | None:
        """What a group delivered before, with its task vectors in the order of its reports.

        Args:
            group: Number of the group in the plan.
            size: Number of parameters.

        Returns:
            None if it is not there or cannot be trusted, which is said in a warning.
        """
        path = self._group(group)
        if not path.exists():
            return None
        try:
            tensors, metadata = read_tensors(path)
            report = json.loads(metadata["report"])
            updates = tuple(_update_of(values) for values in report["updates"])
            rows = tensors["rows"]
        except (UserError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s; its clients are trained again", error)
            return None
        if rows.shape != (len(updates), size) or rows.dtype != np.float32:
            _log.warning("%s holds %s %s; its clients are trained again", path, rows.dtype, rows.shape)
            return None
        states: ClientStates = {client: {} for client in report["stateful"]}
        for place, client in enumerate(report["stateful"]):
            prefix = f"client.{place}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    states[client][name.removeprefix(prefix)] = torch.from_numpy(value)
        return Delivery(updates, report["errors"], states), rows

    def write(self, group: int, delivery: Delivery, matrix: Float[Tensor, "clients params"]) -> None:
        """Keep what a group delivered; it is there whole or not at all.

        Args:
            group: Number of the group in the plan.
            delivery: Its reports.
            matrix: Task vectors of all clients.
        """
        rows = [update.row for update in delivery.updates]
        tensors = {"rows": matrix[rows].cpu().numpy()}
        for place, state in enumerate(delivery.states.values()):
            for name, value in state.items():
                tensors[f"client.{place}.{name}"] = value.detach().cpu().numpy()
        report = {
            "updates": [_values(update) for update in delivery.updates],
            "errors": delivery.errors,
            "stateful": list(delivery.states),
        }
        write_tensors(self._group(group), tensors, {"report": json.dumps(report)})

    def close(self) -> None:
        """Forget the round: its state is on disk."""
        with writing(self.folder):
            # The plan goes first: groups without it are never read.
            self._plan.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    @property
    def _plan(self) -> Path:
        return self.folder / "plan.safetensors"

    def _group(self, group: int) -> Path:
        return self.folder / f"group-{group:05d}.safetensors"

    def _started(self, round: int) -> Plan | None:
        if not self._plan.exists():
            return None
        try:
            content = json.loads(read_tensors(self._plan)[1]["plan"])
            return Plan(content["groups"], content["capacity"]) if content["round"] == round else None
        except (UserError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s; the round starts anew", error)
            return None


def _members(plan: Plan) -> Sequence[str]:
    return sorted(client for group in plan.groups for client in group)


def _values(update: ClientUpdate) -> dict[str, Any]:
    return update._asdict() | {"tuned": {split: list(scores) for split, scores in update.tuned.items()}}


def _update_of(values: dict[str, Any]) -> ClientUpdate:
    tuned = {split: Scores(*scores) for split, scores in values["tuned"].items()}
    return ClientUpdate(**values | {"tuned": tuned})
