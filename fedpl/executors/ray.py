"""Workers as Ray actors, on this machine or a cluster. Needs the extra ``ray``."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.executors.crew import Lost, Order, Raised, Reply
from fedpl.executors.desk import Desk, Said, SiteDesk

ray: Any = deferred("ray")
# It would end actors when other people's programs fill the machine's memory; ours plan their own.
_QUIET: Mapping[str, str] = {"RAY_memory_monitor_refresh_ms": "0", "RAY_USAGE_STATS_ENABLED": "0"}


class Actors:
    """A crew of Ray actors; see `fedpl.executors.crew.Crew`.

    Args:
        size: How many.
        make: Makes what each serves; every machine of a cluster finds data and model by the same names.
        threads: Of each; as many CPUs are reserved for it where the cluster has them.
        gpus: Of each, also in parts.
        address: Of a running cluster; None: one is started, for as long as this process lives.
        desk: Who serves it.
        setting: Which settings ask for them.

    Raises:
        UserError: If the cluster is not reached, or too small.
    """

    def __init__(
        self,
        size: int,
        make: Callable[[], Any],
        threads: int,
        gpus: float = 0.0,
        address: str | None = None,
        desk: type[Desk] = SiteDesk,
        setting: str = "executor",
    ) -> None:
        self.size = size
        self._made_of = desk, make, threads
        _connect(address, size * threads, setting)
        self._check(size, threads, gpus, setting)
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._class = remote(_Actor)
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, tuple[int, bool]] = {}

    def start(self, worker: int) -> None:
        known = self._actors.pop(worker, None)
        if known is not None:
            self._asked = {ref: who for ref, who in self._asked.items() if who[0] != worker}
            ray.kill(known)
        self._actors[worker] = self._class.remote(*self._made_of)
        self._asked[self._actors[worker].made.remote()] = worker, True

    def send(self, worker: int, order: Order) -> None:
        self._asked[self._actors[worker].answer.remote(order)] = worker, False

    def next(self, timeout: float | None) -> tuple[int, Reply] | None:
        while True:
            ready, _ = ray.wait(list(self._asked), timeout=timeout)
            if not ready:
                return None
            worker, making = self._asked.pop(ready[0])
            try:
                said: Said = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                return worker, self._lost(worker, error)
            reply = said.heard(worker)
            if not making:
                return worker, reply
            if isinstance(reply, Raised):
                # Its first order has been sent, and has nobody to do it.
                self._asked = {ref: who for ref, who in self._asked.items() if who[0] != worker}
                return worker, reply

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()

    def _lost(self, worker: int, error: BaseException) -> Lost:
        self._asked = {ref: who for ref, who in self._asked.items() if who[0] != worker}
        return Lost(f"its actor ended ({' '.join(str(error).split())[:300]})")

    def _check(self, size: int, threads: int, gpus: float, setting: str) -> None:
        there = ray.cluster_resources()
        for what, need, lower in (("CPU", size * threads, "threads"), ("GPU", size * gpus, "gpus")):
            if need > there.get(what, 0):
                raise UserError(
                    f"{setting}: {size} actors need {need:g} {what}s, the cluster has "
                    f"{there.get(what, 0):g}; take fewer, or lower {lower}"
                )


class _Actor:
    """What runs in an actor."""

    def __init__(self, desk: type[Desk], make: Callable[[], Any], threads: int) -> None:
        self._desk = desk(make, threads)

    def made(self) -> Said:
        return self._desk.made

    def answer(self, order: Order) -> Said:
        return self._desk.answer(order)


def _connect(address: str | None, cpus: int, setting: str) -> None:
    """Connect Ray to a cluster, unless it is."""
    for name, value in _QUIET.items():  # before it is imported
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        own: dict[str, Any] = {} if address else {"num_cpus": cpus, "include_dashboard": False}
        try:
            ray.init(address, log_to_driver=False, configure_logging=False, **own)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{setting}.address: no Ray cluster at {address}: {error}") from error
