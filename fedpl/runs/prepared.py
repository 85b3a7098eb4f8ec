"""What a run needs before its first round, and what several runs in one process can share of it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fedpl.config import Config
from fedpl.data import FederatedData
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.executors import machine
from fedpl.executors.crew import Crew
from fedpl.executors.fleet import Fleet
from fedpl.executors.memo import FirstRoundMemo
from fedpl.executors.processes import Processes
from fedpl.executors.protocol import Executor
from fedpl.executors.settings import ExecutorConfig
from fedpl.interop import server_device
from fedpl.model.settings import ModelConfig
from fedpl.records.messages import Frozen
from fedpl.runs.sharing import private, sealed, shareable
from fedpl.runs.sites import clients_of, here
from fedpl.sampling import hostile_clients
from fedpl.tasks import Task

if TYPE_CHECKING:
    from fedpl.executors import ray
    from fedpl.model import base as models
    from fedpl.model import hardware
else:
    hardware, models = map(deferred, ("fedpl.model.hardware", "fedpl.model.base"))
    ray = deferred("fedpl.executors.ray")  # the package is an extra


class Prepared(NamedTuple):
    """Clients of a run, as the server knows them.

    Attributes:
        executor: The way to them.
        hostile: Those who attack, in simulations.
        notes: About the data, where they have been read here, for the first lines.
    """

    executor: Executor
    hostile: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def prepare(
    config: Config, data: FederatedData | None = None, base: "models.BaseModel | None" = None
) -> Prepared:
    """Let the clients of a run move in: at a site in this process, or in workers that serve all of them.

    Args:
        config: The run.
        data: The clients, where they have been read already, with the labels that they believe in.
        base: The foundation model, where it has been loaded already; it is changed. Workers load their own.

    Raises:
        UserError: If data, model, hardware or workers are not as configured.
    """
    chosen = config.executor
    if chosen.kind == "here":
        training = str(hardware.choose_hardware(config.accelerator, config.precision).device)
        local = here(config, data, base, server_device(training))
        hostile = hostile_clients(local.join().clients, config.faults, config.seed)
        return Prepared(local, hostile, (*_apart(training), *local.notes))
    if chosen.kind == "flower":
        raise UserError(
            "executor.kind: sites behind Flower are reached from its ServerApp alone; start the run with "
            "flwr run, as docs/howto/flower.md says"
        )
    known = config.accelerator == "cpu" and chosen.threads is not None  # and nobody has to look
    found = machine.Machine((), 0) if known else machine.look()
    if config.accelerator == "cpu":
        found = found._replace(gpus=())
    threads = chosen.threads or max(found.threads // chosen.workers, 1)
    make = partial(here, replace(config, executor=ExecutorConfig()), data)
    fleet = Fleet(_crew(chosen, make, threads, found.gpus), chosen.retries, chosen.timeout)
    hostile = hostile_clients(fleet.join().clients, config.faults, config.seed)
    apart = _apart("cuda" if found.gpus else "cpu")
    return Prepared(fleet, hostile, (*apart, *fleet.ask("notes"), _who(chosen, threads, found.gpus)))


def _crew(chosen: ExecutorConfig, make: Callable[[], Executor], threads: int, gpus: tuple[str, ...]) -> Crew:
    if chosen.kind == "ray":
        return ray.Actors(chosen.workers, make, threads, chosen.gpus, chosen.address)
    return Processes(chosen.workers, make, threads, gpus)


def _who(chosen: ExecutorConfig, threads: int, gpus: tuple[str, ...]) -> str:
    """Who trains, for the first lines: how many threads decides about rounding."""
    what = "Ray actors" if chosen.kind == "ray" else "worker processes"
    own = "" if gpus else f", {threads} threads each"
    return f"{chosen.workers} {what}{own}"


def _apart(training: str) -> tuple[str, ...]:
    """A warning where clients train on a GPU and the server has none."""
    if server_device(training) == training:
        return ()
    return (
        f"warning: torch trains on {training}, but JAX sees no GPU: the server computes on the CPU and every "
        f"task vector is copied there and back; install a JAX for this GPU (pip install 'jax[cuda12]')",
    )


class Workshop:
    """Prepares runs one after another and keeps what the next one can use.

    Runs that train identically share one executor, which remembers their common first round; runs on the
    same model share its frozen weights, runs on the same data and seed the clients. Only the last of each is
    kept.
    """

    def __init__(self) -> None:
        self._prepared: tuple[tuple[Config, bool], Prepared] | None = None
        self._data: tuple[tuple[object, ...], FederatedData] | None = None
        self._base: tuple[tuple[Task, ModelConfig, int], "models.BaseModel"] | None = None

    def prepare(self, config: Config) -> Prepared:
        """What `prepare` gives, without doing again what the run before has done.

        Raises:
            UserError: As `prepare`.
        """
        wanted = shareable(config)
        if self._prepared is None or self._prepared[0] != wanted:
            if self._prepared is not None:
                # The frozen weights are shared with what comes next.
                self._prepared[1].executor.tell(Frozen())
                self._prepared = None  # its tensors go before new ones come
            made = self._made(config)
            if not private(config):
                made = made._replace(executor=FirstRoundMemo(made.executor, sealed(config)))
            self._prepared = wanted, made
        return self._prepared[1]

    def _made(self, config: Config) -> Prepared:
        if config.executor.kind != "here":  # workers read and load what is theirs
            return prepare(config)
        data = self._clients(config)
        return prepare(config, data, _twin(self._model(config.task, config.model, data.classes)))

    def _clients(self, config: Config) -> FederatedData:
        wanted = (config.data, config.seed, config.faults, config.task)
        if self._data is None or self._data[0] != wanted:
            self._data = wanted, clients_of(config)
        return self._data[1]

    def _model(self, task: Task, config: ModelConfig, classes: tuple[str, ...]) -> "models.BaseModel":
        wanted = (task, config, len(classes))
        if self._base is None or self._base[0] != wanted:
            self._base = None
            self._base = wanted, task.base(config, classes)
        return self._base[1]


def _twin(base: "models.BaseModel") -> "models.BaseModel":
    """A copy with layers and a head of its own on the same frozen weights."""
    tensors = (*base.named_parameters(), *base.named_buffers())
    shared = {id(tensor): tensor for name, tensor in tensors if not name.startswith(f"{models.HEAD}.")}
    return copy.deepcopy(base, shared)
