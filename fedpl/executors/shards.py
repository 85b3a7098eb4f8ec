"""Shards of the server's step in processes of their own, on this machine or a Ray cluster."""

import logging
import os
import weakref
from collections.abc import Sequence
from typing import Any

import jax

from fedpl.errors import UserError
from fedpl.executors import ray
from fedpl.executors.crew import Crew, Done, Lost, Order, Raised
from fedpl.executors.desk import Desk
from fedpl.executors.processes import Processes
from fedpl.server.shard import Shard
from fedpl.server.storage import ServerConfig

_log = logging.getLogger(__name__)
RETRIES = 2  # how often an order is given again that was lost with its process


class Apart:
    """A process for each shard; see `fedpl.server.ondisk.Shards`.

    A shard remembers nothing, and what it writes it writes again in the same places: one that dies is started
    again and asked again.

    Args:
        crew: The processes.
        far: Whether they are on other machines.
    """

    def __init__(self, crew: Crew, far: bool) -> None:
        self.size, self.far = crew.size, far
        self._crew = crew
        self.close = weakref.finalize(self, crew.close)
        for worker in range(crew.size):
            crew.start(worker)

    def each(self, verb: str, orders: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What comes of an order for each of them, in their order.

        Raises:
            UserError: If a shard cannot write what it should, or was lost too often.
        """
        found: dict[int, Any] = {}
        losses = [0] * self.size
        for worker, order in enumerate(orders):
            self._crew.send(worker, Order(verb, order))
        while len(found) < self.size:
            heard = self._crew.next(None)
            assert heard is not None, "it waits for as long as it takes"
            worker, reply = heard
            match reply:
                case Done(value):
                    found[worker] = value
                case Raised(error):
                    self.close()  # the others are not waited for
                    raise error
                case Lost(reason):
                    losses[worker] += 1
                    if losses[worker] > RETRIES:
                        self.close()
                        raise UserError(
                            f"server.shards: shard {worker} was lost {losses[worker]} times: {reason}; what "
                            f"was written before is intact: mend this (a lower server.memory_budget, fewer "
                            f"shards) and go on with --resume"
                        )
                    _log.warning("shard %d is started again: %s", worker, reason)
                    self._crew.start(worker)
                    self._crew.send(worker, Order(verb, orders[worker]))
        return [found[worker] for worker in range(self.size)]


def open_shards(chosen: ServerConfig) -> tuple[Apart | None, tuple[str, ...]]:
    """Who shares the columns of the server's step, with a line that says so; None: this process has them all.

    Args:
        chosen: The server's side of a run.

    Raises:
        UserError: If the Ray cluster is not reached, or too small.
    """
    if chosen.storage != "sharded":
        return None, ()
    if chosen.address is not None:
        actors = ray.Actors(chosen.shards, Shard, 1, 0.0, chosen.address, Desk, "server")
        return Apart(actors, far=True), (f"{chosen.shards} Ray actors share the server's columns",)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, gpus = max(cores // chosen.shards, 1), _gpus()
    crew = Processes(chosen.shards, Shard, threads, gpus, Desk)
    own = "" if gpus else f", {threads} threads each"
    return Apart(crew, far=False), (f"{chosen.shards} processes share the server's columns{own}",)


def _gpus() -> tuple[str, ...]:
    """GPUs that JAX computes with here, as CUDA_VISIBLE_DEVICES names them."""
    if jax.default_backend() != "gpu":
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",") if named else map(str, range(jax.local_device_count())))
