"""What a run needs before its first round, and what several runs in one process can share of it."""

import copy
from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from fedpl.clients.hardware import Hardware, choose_hardware
from fedpl.clients.model import HEAD, PooledClassifier, load_base
from fedpl.clients.trainer import ClientTrainer
from fedpl.config import Config, EvaluationConfig, ModelConfig
from fedpl.data import FederatedData
from fedpl.interop import server_device
from fedpl.rounds.attacks import clients_of
from fedpl.rounds.executor import Executor, local_executor
from fedpl.rounds.first_round import FirstRoundMemo


class Prepared(NamedTuple):
    """Clients, model and executor of a run.

    Attributes:
        hardware: Where clients train.
        data: All clients.
        trainer: Model and tokens.
        executor: Who trains and scores.
        initial: θ₀, on the device where task vectors live.
    """

    hardware: Hardware
    data: FederatedData
    trainer: ClientTrainer
    executor: Executor
    initial: Float[Tensor, "params"]


def prepare(
    config: Config, data: FederatedData | None = None, base: PooledClassifier | None = None
) -> Prepared:
    """Read the data, load the model, make the executor.

    Args:
        config: The run.
        data: The clients, where they have been read already.
        base: The foundation model, where it has been loaded already; it is changed.

    Raises:
        UserError: If data, model or hardware are not as configured.
    """
    hardware = choose_hardware(config.accelerator, config.precision)
    data = data or clients_of(config)
    trainer = ClientTrainer(config, data, hardware, base)
    initial = trainer.initial().to(server_device(hardware.device))
    return Prepared(hardware, data, trainer, local_executor(trainer), initial)


def client_side(config: Config) -> Config:
    """The settings that decide what a client's training and scoring give; all others at their defaults."""
    default = Config()
    server = ("method", "rounds", "run_dir", "aggregator", "baselines", "tracking", "store_vectors")
    evaluation = replace(config.evaluation, every=EvaluationConfig().every)
    return replace(config, evaluation=evaluation, **{name: getattr(default, name) for name in server})


def shareable(config: Config) -> tuple[Config, bool]:
    """Runs that are equal in this can train on one executor.

    In bf16 that is not only the client's side: what changes the frozen weights needs them in float32.
    """
    return client_side(config), config.precision != "32-true" and config.aggregator.combine.shifts_base


class Workshop:
    """Prepares runs one after another and keeps what the next one can use.

    Runs that train identically share one executor, which remembers their common first round; runs on the
    same model share its frozen weights, runs on the same data and seed the clients. Only the last of each is
    kept.
    """

    def __init__(self) -> None:
        self._prepared: tuple[tuple[Config, bool], Prepared] | None = None
        self._data: tuple[tuple[object, ...], FederatedData] | None = None
        self._base: tuple[tuple[ModelConfig, int], PooledClassifier] | None = None

    def prepare(self, config: Config) -> Prepared:
        """What `prepare` gives, without doing again what the run before has done.

        Raises:
            UserError: As `prepare`.
        """
        wanted = shareable(config)
        if self._prepared is None or self._prepared[0] != wanted:
            if self._prepared is not None:
                self._prepared[1].executor.shift(None)  # the frozen weights are shared with what comes next
                self._prepared = None  # its tensors go before new ones come
            data = self._clients(config)
            made = prepare(config, data, _twin(self._model(config.model, len(data.classes))))
            self._prepared = wanted, made._replace(executor=FirstRoundMemo(made.executor))
        return self._prepared[1]

    def _clients(self, config: Config) -> FederatedData:
        wanted = (config.data, config.seed, config.faults)
        if self._data is None or self._data[0] != wanted:
            self._data = wanted, clients_of(config)
        return self._data[1]

    def _model(self, config: ModelConfig, classes: int) -> PooledClassifier:
        wanted = (config, classes)
        if self._base is None or self._base[0] != wanted:
            self._base = None
            self._base = wanted, load_base(config, classes)
        return self._base[1]


def _twin(base: PooledClassifier) -> PooledClassifier:
    """A copy with layers and a head of its own on the same frozen weights."""
    tensors = (*base.named_parameters(), *base.named_buffers())
    shared = {id(tensor): tensor for name, tensor in tensors if not name.startswith(f"{HEAD}.")}
    return copy.deepcopy(base, shared)
