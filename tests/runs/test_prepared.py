"""What runs in one process share, and that sharing it changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedpl.config import ClientConfig, Config, ModelConfig
from fedpl.data import Columns, TextFiles
from fedpl.executors.here import Here
from fedpl.executors.memo import FirstRoundMemo
from fedpl.records.messages import Frozen
from fedpl.runs import prepared
from fedpl.runs.prepared import Prepared, Workshop, prepare
from fedpl.runs.sharing import client_side
from fedpl.server import Aggregator, BySize, Stacking, Uniform


@pytest.fixture
def config(small_model: Path, small_table: Path) -> Config:
    source = TextFiles((str(small_table),), Columns(split="split"))
    return Config(data=source, model=ModelConfig(path=str(small_model)), accelerator="cpu")


def model_of(made: Prepared) -> torch.nn.Module:
    executor = made.executor
    here = executor.executor if isinstance(executor, FirstRoundMemo) else executor
    assert isinstance(here, Here)
    return here.site.foundation.model


def frozen(prepared: Prepared) -> list[torch.Tensor]:
    return [p for p in model_of(prepared).parameters() if not p.requires_grad]


def test_runs_that_train_alike_share_everything(config: Config) -> None:
    workshop = Workshop()
    first = workshop.prepare(config)
    other = replace(config, name="fedavg", rounds=9, aggregator=Aggregator(weighting=Uniform()))
    assert workshop.prepare(other) is first


def test_runs_that_train_otherwise_share_data_and_frozen_weights(config: Config) -> None:
    workshop = Workshop()
    first = workshop.prepare(config)
    second = workshop.prepare(replace(config, client=ClientConfig(lr=0.5)))
    assert second.executor is not first.executor
    assert second.executor.join().members == first.executor.join().members
    places = {tensor.data_ptr() for tensor in frozen(first)}
    shared = [tensor.data_ptr() in places for tensor in frozen(second)]
    assert sum(shared) >= len(shared) - 2, "all but the head's frozen original"
    assert second.executor.executor.site.worker.partitions.config.lr == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", [0, 3])
def test_what_is_shared_is_what_a_run_of_its_own_has(seed: int, config: Config) -> None:
    workshop = Workshop()
    workshop.prepare(replace(config, seed=1, client=ClientConfig(lr=0.5)))
    wanted = replace(config, seed=seed)
    shared, own = workshop.prepare(wanted), prepare(wanted)
    one, other = shared.executor.join(), own.executor.join()
    assert torch.equal(one.initial, other.initial)
    assert one.members == other.members
    for a, b in zip(frozen(shared), frozen(own), strict=True):
        assert a.shape == b.shape
    start = one.initial.expand(3, -1).clone()
    scores = [p.executor.score(one.clients, start, "test") for p in (shared, own)]
    assert scores[0] == scores[1]


def test_a_shift_of_the_frozen_weights_ends_with_the_run_that_made_it(config: Config) -> None:
    workshop = Workshop()
    first = workshop.prepare(config)
    layer = next(m for m in model_of(first).modules() if hasattr(m, "lora_A")).get_base_layer()
    before = layer.weight.detach().clone()
    sizes = [m.get_base_layer().weight.numel() for m in model_of(first).modules() if hasattr(m, "lora_A")]
    first.executor.tell(Frozen("ones", torch.ones(sum(sizes))))
    assert not torch.equal(layer.weight, before)
    workshop.prepare(replace(config, client=ClientConfig(lr=0.5)))
    assert torch.equal(layer.weight, before)


def test_bf16_does_not_reach_those_who_change_the_frozen_weights(config: Config) -> None:
    workshop = Workshop()
    half = workshop.prepare(replace(config, precision="bf16-mixed"))
    assert torch.bfloat16 in {tensor.dtype for tensor in frozen(half)}
    stacking = Aggregator(weighting=BySize(), combine=Stacking())
    whole = workshop.prepare(replace(config, precision="bf16-mixed", aggregator=stacking))
    own = prepare(replace(config, precision="32-true"))
    for a, b in zip(frozen(whole)[:-2], frozen(own)[:-2], strict=True):  # without the head's original
        assert torch.equal(a, b)


def test_only_settings_of_the_server_are_left_out(config: Config) -> None:
    for change in (
        {"seed": 1},
        {"client": ClientConfig(epochs=7)},
        {"precision": "32-true"},
        {"model": ModelConfig(path="elsewhere")},
    ):
        assert client_side(replace(config, **change)) != client_side(config)


def test_a_gpu_that_only_torch_sees_is_told_in_the_first_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert prepared._apart("cpu") == prepared._apart("cuda:1") == ()
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert prepared._apart("cpu") == ()
    (line,) = prepared._apart("cuda:1")
    assert line.startswith("warning: torch trains on cuda:1, but JAX sees no GPU")
