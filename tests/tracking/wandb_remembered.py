"""What the stand-in for a W&B server remembers of runs and sweeps."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """What has arrived of a run.

    Attributes:
        shown: The last values of its attributes: displayName, project, tags, groupName, ...
        lines: Lines by file of the stream.
        received: Bytes of the file stream.
        exitcode: How it ended; None: not yet.
    """

    shown: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    received: int = 0
    exitcode: int | None = None

    def rows(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get(f"wandb-{kind}", [])]

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.rows("history.jsonl")

    @property
    def rounds(self) -> list[int]:
        return [row["round"] for row in self.history]

    @property
    def summary(self) -> dict[str, Any]:
        return (self.rows("summary.json") or [{}])[-1]


@dataclass
class Sweep:
    """A sweep and the runs that it has handed out."""

    config: str
    points: Iterator[dict[str, Any]]
    given: list[str] = field(default_factory=list)


def grid(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    parameters = config["parameters"]
    for point in itertools.product(*(spec["values"] for spec in parameters.values())):
        yield dict(zip(parameters, point, strict=True))
