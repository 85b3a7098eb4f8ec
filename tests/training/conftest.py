"""Clients with little in common, and a trainer for them on the small model."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import ClientData, FederatedData, Split
from fedpl.model.hardware import Hardware
from tests.conftest import BAD, GOOD, THINGS
from tests.training.facade import ClientTrainer

WORDS = (*GOOD, *BAD, *THINGS)
CPU = Hardware(torch.device("cpu"), "32-true")
# (training examples, longest text, one class only)
PEOPLE = ((5, 4, False), (23, 30, False), (12, 9, True), (1, 3, False), (40, 12, False), (9, 25, True))
PEOPLE += ((16, 16, False), (31, 6, False))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def texts(stream: random.Random, number: int, longest: int) -> tuple[str, ...]:
    return tuple(" ".join(stream.choices(WORDS, k=stream.randint(1, longest))) for _ in range(number))


@pytest.fixture(scope="session")
def people() -> FederatedData:
    """Eight clients with unequal numbers of examples and lengths; two know one class only."""
    stream = random.Random(1)
    clients = []
    for i, (number, longest, alone) in enumerate(PEOPLE):
        splits = [
            Split(
                texts(stream, size, longest), tuple(0 if alone else stream.randrange(3) for _ in range(size))
            )
            for size in (number, 7, 11)
        ]
        clients.append(ClientData(f"c{i}", *splits))
    return FederatedData(tuple(clients), ("x", "y", "z"))


@pytest.fixture
def make_trainer(small_model: Path, people: FederatedData) -> Callable[..., ClientTrainer]:
    """A trainer on the tiny model; keywords are ClientConfig's, `lora` is LoraSettings."""

    def make(hardware: Hardware = CPU, lora: LoraSettings | None = None, **client: object) -> ClientTrainer:
        defaults = ClientConfig(batch_size=4, epochs=2, model_dropout=False, gradient_clip=0.5)
        config = Config(
            model=ModelConfig(path=str(small_model)),
            lora=lora or LoraSettings(r=4),
            client=replace(defaults, **client),  # type: ignore[arg-type]
        )
        return ClientTrainer(config, people, hardware)

    return make


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[list[Any]]]:
    """Within it torch captures graphs as it really does, without minutes in the C++ compiler."""
    compile = torch.nn.Module.compile

    @contextmanager
    def context() -> Iterator[list[Any]]:
        compiled: list[Any] = []

        def eager(self: torch.nn.Module, **options: Any) -> None:
            compiled.append(options)
            compile(self, backend="eager", **options)

        monkeypatch.setattr(torch.nn.Module, "compile", eager)
        jaxtyping.config.update("jaxtyping_disable", True)  # the tests' shape checks cannot be captured
        try:
            yield compiled
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    return context
