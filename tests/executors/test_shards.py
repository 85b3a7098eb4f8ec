"""The server's columns in several processes: whole runs, also when shards or the server are killed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedpl.api import Run
from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.executors import shards as apart
from fedpl.executors.crew import Order
from fedpl.executors.desk import Desk
from fedpl.executors.processes import Processes
from fedpl.executors.shards import Apart
from fedpl.mapped import scratch
from fedpl.problems import check
from fedpl.runs.experiment import run
from fedpl.server import Aggregator
from fedpl.server.shard import Shard
from fedpl.server.storage import ServerConfig
from tests import bounds
from tests.executors.test_fleet import same
from tests.executors.test_other_process import one_thread
from tests.server.test_contract import ROUNDING, ROUNDS
from tests.server.test_panels import FEW, rounds
from tests.server.test_shards import shared_out

__all__ = ["one_thread"]  # a fixture: rounding depends on the number of threads
STEPS = 4  # of a client in two rounds, at most
QUIET = Console(quiet=True)


@pytest.fixture
def config(small_run: list[str]) -> Config:
    lean = {"rounds": 2, "tracking.plots": False, "server.storage": "sharded"}
    return with_changes(read(make_parser("fit", ""), small_run), lean)


class Killed(Processes):
    """Kills the shard that has just been told something, at chosen times."""

    moments: frozenset[int] = frozenset()
    orders = killed = 0

    def send(self, worker: int, order: Order) -> None:
        super().send(worker, order)
        self.orders += 1
        if self.orders in self.moments:
            self._workers[worker].process.kill()
            self.killed += 1


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Killed]:
    """Every third order of a run costs the life of who has it."""
    made: list[Killed] = []

    def crew(*given: Any) -> Killed:
        made.append(Killed(*given))
        made[-1].moments = frozenset({2, 5, 7, 11, 13, 17})
        return made[-1]

    monkeypatch.setattr(apart, "Processes", crew)
    return made


@pytest.mark.parametrize("job", ["fedbip", "flora"])
def test_a_sharded_run_is_that_on_disk_whoever_is_killed(
    job: str, config: Config, tmp_path: Path, killed: list[Killed], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = with_changes(config, {"method": job, "baselines": ["fedavg"]})
    through = run(replace(own, run_dir=str(tmp_path / "killed")), QUIET)
    assert [crew.killed for crew in killed] == [6]
    monkeypatch.undo()
    told = Console(record=True, width=120)
    undisturbed = run(replace(own, run_dir=str(tmp_path / "whole")), told)
    assert "2 processes share the server's columns" in told.export_text()
    same(through, undisturbed)
    on_disk = replace(own, server=ServerConfig("disk"), run_dir=str(tmp_path / "disk"))
    alone = run(on_disk, QUIET)
    assert Run.open(alone).summary.clients == Run.open(undisturbed).summary.clients
    parts = sorted(path.relative_to(alone) for path in alone.rglob("aggregates-*.npy"))
    assert len(parts) >= 2
    for part in parts:
        expected, found = np.load(alone / part), np.load(undisturbed / part)
        bounds.within(found, expected, bounds.trained(STEPS) * np.linalg.norm(expected, axis=-1).max())
    left = [path for path in undisturbed.rglob(".*") if path.suffix == ".part"]
    assert left == [], "nothing is left of what shards looked at"


def test_a_run_goes_on_with_any_number_of_shards(config: Config, tmp_path: Path) -> None:
    """Some clients are away, and are compared by what they sent last."""
    changes = {"aggregator.stale_discount": 0.5, "participation.fraction": 0.7, "baselines": []}
    own = replace(with_changes(config, changes), run_dir=str(tmp_path / "cut"))
    folder = run(replace(own, rounds=1), QUIET)
    own = replace(own, server=replace(own.server, shards=3))
    run(own, QUIET, resume=folder)
    whole = run(replace(own, server=ServerConfig("disk"), run_dir=str(tmp_path / "whole")), QUIET)
    one, other = (np.load(path / "state" / "aggregates-000002.npy") for path in (folder, whole))
    bounds.within(one, other, bounds.trained(STEPS) * np.linalg.norm(other, axis=-1).max())


def test_one_that_is_lost_each_time_ends_the_run(tmp_path: Path) -> None:
    crew = Killed(2, Shard, 1, (), Desk)
    crew.moments = frozenset({1, 3, 4})
    with pytest.raises(UserError, match=r"shard 0 was lost 3 times: its process ended with signal 9; what"):
        shared_out(Aggregator(), Apart(crew, far=False), tmp_path)
    assert not crew._workers, "the others do not stay"


def test_what_goes_wrong_in_a_shard_is_said_here(tmp_path: Path) -> None:
    crew = Processes(2, Shard, 1, (), Desk)
    shards = Apart(crew, far=False)
    with pytest.raises(RuntimeError, match=r"AttributeError: .* has no attribute 'nothing'"):
        shards.each("nothing", [(), ()])
    assert not crew._workers


def test_ray_actors_share_the_columns(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    expected, _ = rounds(Aggregator(), None, FEW)
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        chosen = ServerConfig("sharded", shards=2, address="auto")
        shards, lines = apart.open_shards(chosen)
        assert lines == ("2 Ray actors share the server's columns",)
        _, _, found = shared_out(Aggregator(), shards, tmp_path)
        bounds.within(found, np.asarray(expected.personal), len(ROUNDS) * ROUNDING)
        gone = scratch(tmp_path, (2, 3), "x")
        (tmp_path / "x").unlink()
        with pytest.raises(UserError, match=r"lost 3 times: its actor ended \(.*No such file"):
            shards.each("measured", [(gone,), (gone,)])
        with pytest.raises(UserError, match=r"server: 5 actors need 5 CPUs, the cluster has 2"):
            apart.open_shards(replace(chosen, shards=5))
    finally:
        ray.shutdown()


def test_a_shard_imports_neither_torch_nor_wandb() -> None:
    program = (
        "import sys\n"
        "import fedpl.executors.worker, fedpl.executors.desk\n"
        "from fedpl.server.shard import Shard\n"
        "Shard()\n"
        "assert 'jax' in sys.modules\n"
        "print({'torch', 'lightning', 'wandb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"server.shards": 0}, "server.shards: at least 1, got 0"),
        (
            {"server.storage": "disk", "server.shards": 3},
            "server.shards: means something with storage sharded",
        ),
        (
            {"server.storage": "memory", "server.address": "auto"},
            "server.address: means something with storage",
        ),
        ({"baselines": ["fedawa"]}, "fedawa: aggregator.weighting: FedAwa looks at whole vectors"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], line: str, config: Config) -> None:
    with pytest.raises(UserError, match=line):
        check(with_changes(config, changes))
