"""Where the server keeps task vectors and aggregates, and which rules can do with the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fedpl.server.aggregator import Aggregator


@dataclass(frozen=True)
class ServerConfig:
    """The server's side of a run.

    Attributes:
        storage: memory; or disk, for more task vectors than memory holds: they and the aggregates lie in
            files beside the run's state (up to 16 bytes for each client and parameter), and a round is worked
            on some columns at a time. The same results up to the rounding of sums.
        memory_budget: With disk: megabytes of task vectors and aggregates that are in memory at a time,
            beside what the process itself and its clients' training take.
    """

    storage: Literal["memory", "disk"] = "memory"
    memory_budget: int = 512

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        if self.memory_budget >= 1:
            return ()
        return [f"server.memory_budget: at least 1 (megabyte), got {self.memory_budget}"]


def problems_on_disk(rule: "Aggregator") -> Sequence[str]:
    """What a rule cannot do block by block, one line each."""
    combine, whole = rule.combine, rule.granularity not in ("block", "tensor")
    checks = (
        (rule.server_momentum, "server_momentum: the momentum of all steps would be held in memory"),
        (
            rule.subject.vectors == "averaged",
            "subject.vectors: averaged ones would be held in memory",
        ),
        (rule.receive.several, f"receive: {type(rule.receive).__name__} moves whole models"),
        (rule.weighting.by_vectors, f"weighting: {type(rule.weighting).__name__} looks at whole vectors"),
        (not combine.by_block, f"combine: {type(combine).__name__} is not said to work block by block"),
        (
            getattr(combine, "match_norm", False) and whole,
            "combine.match_norm: looks at whole vectors; set granularity to block",
        ),
    )
    return [f"aggregator.{line}; set server.storage to memory" for wrong, line in checks if wrong]
