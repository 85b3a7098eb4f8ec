"""Where the server keeps task vectors and aggregates, and which rules can do with the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fedpl.server.aggregator import Aggregator


@dataclass(frozen=True)
class ServerConfig:
    """The server's side of a run.

    Attributes:
        storage: memory; or disk, for more task vectors than memory holds: they and the aggregates lie in
            files beside the run's state (up to 16 bytes for each client and parameter), and a round is worked
            on some columns at a time; or sharded: the same, and several processes share the columns. The same
            results up to the rounding of sums.
        memory_budget: With disk or sharded: megabytes of task vectors and aggregates that are in memory at a
            time, in each process, beside what the process itself and its clients' training take.
        shards: With sharded: how many processes share the columns. They remember nothing: one that dies is
            started again, and a run goes on with any number of them.
        address: With sharded: of a running Ray cluster (``auto``, ``host:6379``) whose actors they are, on
            its CPUs (extra ``ray``); every machine finds the run's directory by the same path. null: they are
            processes of this machine, which take its GPUs in turn where there are some.
    """

    storage: Literal["memory", "disk", "sharded"] = "memory"
    memory_budget: int = 512
    shards: int = 2
    address: str | None = None

    @property
    def on_disk(self) -> bool:
        """Whether task vectors and aggregates lie in files."""
        return self.storage != "memory"

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        alone = "means something with storage sharded only; leave it out"
        sharded, default = self.storage == "sharded", ServerConfig()
        checks = (
            (self.memory_budget >= 1, f"memory_budget: at least 1 (megabyte), got {self.memory_budget}"),
            (self.shards >= 1, f"shards: at least 1, got {self.shards}"),
            (sharded or self.shards == default.shards, f"shards: {alone}"),
            (sharded or self.address is None, f"address: {alone}"),
            (
                self.address is None or find_spec("ray") is not None,
                "address: needs a package that is not installed; pip install 'fedpl[ray]'",
            ),
        )
        return [f"server.{what}" for holds, what in checks if not holds]


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
