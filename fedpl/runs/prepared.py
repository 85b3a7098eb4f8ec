"""What a run needs before its first round, and what several runs in one process can share of it."""

import copy
import hashlib
from dataclasses import replace
from typing import NamedTuple

import torch

from fedpl.config import ClientConfig, Config
from fedpl.data import FederatedData, describe
from fedpl.executors.here import Here
from fedpl.executors.memo import FirstRoundMemo
from fedpl.executors.protocol import Executor
from fedpl.interop import server_device
from fedpl.model.base import HEAD, BaseModel
from fedpl.model.foundation import Foundation
from fedpl.model.hardware import choose_hardware
from fedpl.model.settings import ModelConfig
from fedpl.randomness import derive_seed
from fedpl.records.messages import Frozen
from fedpl.site.faults import Faults, with_false_labels
from fedpl.site.site import Site
from fedpl.tasks import Task
from fedpl.training.alone.backend import Alone
from fedpl.training.backend import Backend
from fedpl.training.partitions import partitions_of
from fedpl.training.settings import EvaluationConfig
from fedpl.training.stacked.backend import Stacked
from fedpl.training.worker import Worker

_HOW = ("guard", "cohort_size", "tokens_per_pass", "prefix_cache_mb", "gradient_checkpointing", "compile")


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


def prepare(config: Config, data: FederatedData | None = None, base: BaseModel | None = None) -> Prepared:
    """Read the data, load the model, let the clients move in at a site in this process.

    Args:
        config: The run.
        data: The clients, where they have been read already, with the labels that they believe in.
        base: The foundation model, where it has been loaded already; it is changed.

    Raises:
        UserError: If data, model or hardware are not as configured.
    """
    data = data or clients_of(config)
    worker = Worker(backend_of(config, data, base))
    faults = Faults(data.ids, config.faults, config.seed)
    site = Site(data, worker, config.privacy, faults, config.seed, release(config))
    training = worker.backend.foundation.hardware.device
    server = server_device(training)
    notes = (*_apart(training, server), *describe(data), *_cut(worker, config.model))
    return Prepared(Here(site, server), faults.hostile, notes)


def _apart(training: torch.device, server: torch.device) -> tuple[str, ...]:
    """A warning where clients train on a GPU and the server has none."""
    if training.type == server.type:
        return ()
    return (
        f"warning: torch trains on {training}, but JAX sees no GPU: the server computes on the CPU and every "
        f"task vector is copied there and back; install a JAX for this GPU (pip install 'jax[cuda12]')",
    )


def _cut(worker: Worker, model: ModelConfig) -> tuple[str, ...]:
    """That prompts were cut, where the task counts them."""
    examples = worker.partitions.examples.values()
    cut, all = sum(own.cut for own in examples), sum(map(len, examples))
    what = f"prompts are cut from the left to model.max_length {model.max_length}"
    return (f"warning: {cut:,} of {all:,} {what}",) if cut else ()


def clients_of(config: Config) -> FederatedData:
    """The data of a run, as the clients see them."""
    data = config.task.take(config.data.load(config.seed))
    return with_false_labels(data, config.faults, config.seed)


def backend_of(config: Config, data: FederatedData, base: BaseModel | None = None) -> Backend:
    """What trains the clients of a run in this process.

    Raises:
        UserError: If the model or the hardware is not as configured, or client.per_client names a client that
            the data does not have.
    """
    hardware = choose_hardware(config.accelerator, config.precision)
    partitions = partitions_of(config.task, config.client, config.model, config.seed, data, config.rounds)
    base = base or config.task.base(config.model, data.classes)
    init = derive_seed(config.seed, "init")
    shifts = _shifts(config)
    foundation = Foundation(base, config.lora, config.model.path, init, hardware, shifts)
    if config.client.cohort_size == 1:
        return Alone(foundation, partitions, config.evaluation.batch_size)
    return Stacked(foundation, partitions)


def _shifts(config: Config) -> bool:
    """Whether a method changes the frozen weights."""
    return any(method.aggregator.combine.shifts_base for method in config.methods)


def sealed(config: Config) -> bool:
    """Whether what clients send differs from what they keep."""
    return private(config) or config.faults.hostile > 0


def private(config: Config) -> bool:
    """Whether noise is added for privacy: each method of a run draws its own, so they share no answers."""
    return config.privacy.clip is not None


def release(config: Config) -> str:
    """Digest of the settings that shape task vectors: runs that differ in them draw other noise.

    Without what makes a run longer, shows it, says how it is computed or what clients use in the end: that
    gives the same task vectors.
    """
    default, client = Config(), ClientConfig()
    free: tuple[str, ...] = ("run_dir", "baselines", "evaluation", "tracking", "store_vectors", "accelerator")
    free += () if config.client.rates.needs_rounds else ("rounds",)
    own = replace(
        config,
        client=replace(config.client, **{name: getattr(client, name) for name in _HOW}),
        **{name: getattr(default, name) for name in free},
    )
    return hashlib.blake2b(own.to_yaml().encode(), digest_size=16).hexdigest()


def client_side(config: Config) -> Config:
    """The settings that decide what a client's training and scoring give; all others at their defaults."""
    default = Config()
    server = ("name", "rounds", "run_dir", "aggregator", "baselines", "tracking", "store_vectors")
    evaluation = replace(config.evaluation, every=EvaluationConfig().every)
    return replace(config, evaluation=evaluation, **{name: getattr(default, name) for name in server})


def shareable(config: Config) -> tuple[Config, bool]:
    """Runs that are equal in this can train on one executor.

    Private runs share an executor only where they are one method: noise is a method's own. In bf16 that is
    not only the client's side: what changes the frozen weights needs them in float32.
    """
    own = client_side(config)
    if private(config):
        own = replace(own, name=config.name, aggregator=config.aggregator)
    return own, config.precision != "32-true" and _shifts(config)


class Workshop:
    """Prepares runs one after another and keeps what the next one can use.

    Runs that train identically share one executor, which remembers their common first round; runs on the
    same model share its frozen weights, runs on the same data and seed the clients. Only the last of each is
    kept.
    """

    def __init__(self) -> None:
        self._prepared: tuple[tuple[Config, bool], Prepared] | None = None
        self._data: tuple[tuple[object, ...], FederatedData] | None = None
        self._base: tuple[tuple[Task, ModelConfig, int], BaseModel] | None = None

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
            data = self._clients(config)
            made = prepare(config, data, _twin(self._model(config.task, config.model, data.classes)))
            if not private(config):
                made = made._replace(executor=FirstRoundMemo(made.executor, sealed(config)))
            self._prepared = wanted, made
        return self._prepared[1]

    def _clients(self, config: Config) -> FederatedData:
        wanted = (config.data, config.seed, config.faults, config.task)
        if self._data is None or self._data[0] != wanted:
            self._data = wanted, clients_of(config)
        return self._data[1]

    def _model(self, task: Task, config: ModelConfig, classes: tuple[str, ...]) -> BaseModel:
        wanted = (task, config, len(classes))
        if self._base is None or self._base[0] != wanted:
            self._base = None
            self._base = wanted, task.base(config, classes)
        return self._base[1]


def _twin(base: BaseModel) -> BaseModel:
    """A copy with layers and a head of its own on the same frozen weights."""
    tensors = (*base.named_parameters(), *base.named_buffers())
    shared = {id(tensor): tensor for name, tensor in tensors if not name.startswith(f"{HEAD}.")}
    return copy.deepcopy(base, shared)
