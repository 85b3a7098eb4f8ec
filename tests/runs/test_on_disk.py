"""A whole run with task vectors and aggregates on disk."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from fedpl.api import Run
from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig, with_changes
from fedpl.data import Columns, TextFiles
from fedpl.errors import UserError
from fedpl.runs import experiment
from fedpl.runs.demands import check_demands
from fedpl.runs.prepared import prepare
from tests import bounds

STEPS = 4  # of a client in two rounds, at most


@pytest.fixture
def config(small_model: Path, small_table: Path) -> Config:
    config = Config(
        rounds=2,
        data=TextFiles((str(small_table),), Columns(split="split")),
        model=ModelConfig(path=str(small_model)),
        lora=LoraSettings(r=2),
        client=ClientConfig(batch_size=5, epochs=1),
        accelerator="cpu",
        baselines=("fedavg",),
    )
    return with_changes(config, {"tracking.wandb.mode": "disabled", "tracking.plots": False})


def test_a_run_on_disk_is_that_in_memory(config: Config, tmp_path: Path) -> None:
    for storage in ("memory", "disk"):
        changes = {"run_dir": str(tmp_path / storage), "server.storage": storage}
        experiment.run(with_changes(config, changes), Console(quiet=True))
    memory, disk = (Run.open(tmp_path / name).summary for name in ("memory", "disk"))
    assert memory.clients == disk.clients
    assert {n: b.test for n, b in memory.baselines.items()} == {n: b.test for n, b in disk.baselines.items()}
    parts = sorted(
        p.relative_to(tmp_path / "memory") for p in (tmp_path / "memory").rglob("aggregates-*.npy")
    )
    assert len(parts) == 3, "two rounds' of the method, the last one's of the average"
    for file in parts:
        memory, disk = (np.load(tmp_path / name / file) for name in ("memory", "disk"))
        size = np.linalg.norm(memory, axis=-1).max()
        bounds.within(disk, memory, bounds.trained(STEPS) * size)
    files = sorted(p.relative_to(tmp_path / "memory") for p in (tmp_path / "memory").rglob("*.safetensors"))
    assert files == sorted(
        p.relative_to(tmp_path / "disk") for p in (tmp_path / "disk").rglob("*.safetensors")
    )
    for file in files:
        memory, disk = (load_file(tmp_path / name / file) for name in ("memory", "disk"))
        assert memory.keys() == disk.keys()
        for name in ("reference",) if "reference" in memory else memory:
            # The second round trains from aggregates whose sums were added in another order.
            size = np.linalg.norm(memory[name], axis=-1).max(initial=0)
            bounds.within(disk[name], memory[name], bounds.trained(STEPS) * size)


def test_what_memory_cannot_hold_is_sent_to_the_disk(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:

    census = prepare(config).executor.join()
    monkeypatch.setattr("fedpl.runs.demands.free_memory", lambda device: 1000)
    with pytest.raises(UserError, match="keep them on disk"):
        check_demands(config, census)
    check_demands(with_changes(config, {"server.storage": "disk"}), census)


def test_a_budget_in_which_no_round_is_possible_is_refused(config: Config) -> None:
    """A round by columns fits anywhere; one by modules takes a module of every client at once."""
    census = prepare(config).executor.join()
    many = census._replace(members=census.members * 1000)
    given = with_changes(config, {"server.storage": "disk", "server.memory_budget": 8, "baselines": []})
    check_demands(given, many)
    by_module = with_changes(given, {"aggregator.subject.space": "product"})
    check_demands(by_module, census)
    widest = max(b.stop - a.start for a, b in census.layout.pairs)
    least = -(-16 * 4 * len(many.members) * widest // 2**20)
    with pytest.raises(UserError, match=f"server.memory_budget: fedbip needs at least {least:,} MB for"):
        check_demands(by_module, many)
    check_demands(with_changes(by_module, {"server.memory_budget": least}), many)
