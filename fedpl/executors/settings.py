"""Where clients train: settings only."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal


@dataclass(frozen=True)
class ExecutorConfig:
    """Who trains the clients.

    Results depend on who trains together and on the number of threads, not on which worker trains whom, in
    which order, or how often a worker had to be started again.

    Attributes:
        kind: here: in this process. processes: in worker processes of this machine, each with the data and
            the model; a GPU for each in turn, where there are some. ray: in Ray actors, on one machine or a
            cluster (extra ``ray``). flower: at sites of other organisations, each with clients of its own;
            such a run is started by ``flwr run`` (docs/howto/flower.md).
        workers: How many; of flower, sites. A round's clients make at least as many cohorts.
        threads: Threads of each worker on a CPU; null shares out this machine's.
        gpus: GPUs of each Ray actor, also in parts; processes take what is there.
        address: Of a running Ray cluster (``auto``, ``host:6379``, ``ray://host:10001``); null starts one in
            this process.
        retries: How often work that was lost with its worker is given to another, or to the same site, before
            its clients are named as failed.
        timeout: Seconds after which a worker that has not answered is taken for dead, or a site is given up
            for the round; null waits.
    """

    kind: Literal["here", "processes", "ray", "flower"] = "here"
    workers: int = 2
    threads: int | None = None
    gpus: float = 0.0
    address: str | None = None
    retries: int = 2
    timeout: float | None = None

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        only_ray = "means something with kind ray only; leave it out"
        checks = (
            (
                self.kind != "ray" or find_spec("ray") is not None,
                "kind: ray needs a package that is not installed; pip install 'fedpl[ray]'",
            ),
            (self.workers >= 1, f"workers: at least 1, got {self.workers}"),
            (self.threads is None or self.threads >= 1, f"threads: at least 1, got {self.threads}"),
            (self.gpus >= 0, f"gpus: must not be negative, got {self.gpus}"),
            (self.kind == "ray" or not self.gpus, f"gpus: {only_ray}"),
            (self.kind == "ray" or self.address is None, f"address: {only_ray}"),
            (
                self.kind != "flower" or self.threads is None,
                "threads: a site says how many it takes (python -m fedpl.site --threads); leave it out",
            ),
            (self.retries >= 0, f"retries: must not be negative, got {self.retries}"),
            (
                self.timeout is None or self.timeout > 0,
                f"timeout: must be positive, or null to wait, got {self.timeout}",
            ),
            (
                self.kind != "here" or self == ExecutorConfig(),
                "kind: here has no workers: its other settings mean nothing; choose another kind",
            ),
        )
        return [f"executor.{what}" for holds, what in checks if not holds]
