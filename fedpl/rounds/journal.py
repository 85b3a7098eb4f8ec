"""What the clients of an open round have delivered, on disk before the round is closed.

A round that is cut off goes on where it stopped: groups of clients that trained together are read back whole,
the others are trained in the same company as they would have been, so that every bit is the same.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.files import read_tensors, release, write_tensors, writing
from fedpl.interop import borrow, on_host
from fedpl.records.messages import Company, Report, Seconds

_log = logging.getLogger(__name__)


class Delivery(NamedTuple):
    """What a group of clients delivered.

    Attributes:
        reports: Their answers; the task vectors are in the matrix.
        errors: Why clients delivered nothing, by client.
    """

    reports: tuple[Report, ...]
    errors: dict[str, str]


class Journal:
    """The open round of one method.

    Args:
        folder: Where it is kept; made when the first round opens.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, round: int, company: Company) -> Company:
        """Start a round, or go on with it if an earlier process started it for the same clients.

        Args:
            round: Number of the round.
            company: Who trains together, unless it has been started.

        Returns:
            The company that holds.
        """
        started = self._started(round)
        if started is not None and _members(started) == _members(company):
            return started
        self.close()
        with writing(self.folder):
            self.folder.mkdir()
        content = {"round": round, "groups": company.groups, "capacity": dict(company.capacity)}
        write_tensors(self._plan, {}, {"plan": json.dumps(content)})
        return company

    def read(
        self,
        group: int,
        rows: Mapping[str, Float[Any, "params"]],
        settle: Callable[[], None] = lambda: None,
    ) -> Delivery | None:
        """What a group delivered before.

        Args:
            group: Number of the group in the plan.
            rows: Where the clients' task vectors belong; they are put there.
            settle: Called after each.

        Returns:
            None if it is not there or cannot be trusted, which is said in a warning.
        """
        path = self._group(group)
        if not path.exists():
            return None
        try:
            tensors, metadata = read_tensors(path, mapped=True)
            content = json.loads(metadata["report"])
            found = [(values, tensors[_name(place)]) for place, values in enumerate(content["reports"])]
            for values, vector in found:
                if vector.shape != rows[values["client"]].shape or vector.dtype != np.float32:
                    raise UserError(f"{path} holds {vector.dtype} {vector.shape}")
            return Delivery(
                tuple(_put(values, vector, rows, settle) for values, vector in found), content["errors"]
            )
        except (UserError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s; its clients are trained again", error)
            return None

    def write(self, group: int, delivery: Delivery, settle: Callable[[], None] = lambda: None) -> None:
        """Keep what a group delivered; it is there whole or not at all.

        Args:
            group: Number of the group in the plan.
            delivery: Its reports, with their task vectors.
            settle: Called after each task vector, see `write_tensors`.
        """
        rows = {_name(i): on_host(report.vector) for i, report in enumerate(delivery.reports)}
        content = {"reports": [_values(report) for report in delivery.reports], "errors": delivery.errors}
        write_tensors(self._group(group), rows, {"report": json.dumps(content)}, settle)

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

    def _started(self, round: int) -> Company | None:
        if not self._plan.exists():
            return None
        try:
            content = json.loads(read_tensors(self._plan)[1]["plan"])
            groups = tuple(tuple(members) for members in content["groups"])
            return Company(groups, content["capacity"]) if content["round"] == round else None
        except (UserError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s; the round starts anew", error)
            return None


def _name(place: int) -> str:
    """Of a report's task vector."""
    return f"row-{place:06d}"


def _members(company: Company) -> Sequence[str]:
    return sorted(client for group in company.groups for client in group)


def _values(report: Report) -> dict[str, Any]:
    values = report._asdict() | {"seconds": list(report.seconds)}
    del values["vector"]
    return values


def _put(
    values: dict[str, Any],
    vector: Float[np.ndarray, "params"],
    rows: Mapping[str, Float[Any, "params"]],
    settle: Callable[[], None],
) -> Report:
    row = rows[values["client"]]
    row[:] = borrow(vector, row)
    release(vector)
    settle()
    return Report(**values | {"seconds": Seconds(*values["seconds"]), "vector": row})
