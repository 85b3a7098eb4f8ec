"""Clients in several workers: the same runs as in one process, whatever becomes of workers and replies."""

import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import psutil
import pytest
import torch
from rich.console import Console

from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.executors.crew import Done, Lost, Order, Raised, Reply
from fedpl.executors.fleet import Fleet
from fedpl.executors.here import Here
from fedpl.executors.processes import Processes
from fedpl.executors.protocol import Executor
from fedpl.executors.settings import ExecutorConfig
from fedpl.objectives import Plain
from fedpl.records.messages import Failure, Frozen, Report, Work
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Prepared
from fedpl.runs.sites import here
from tests.executors.stand_ins import Odd, watched
from tests.executors.test_other_process import JOBS, one_thread, result

__all__ = ["one_thread"]  # a fixture: rounding depends on the number of threads
ROOT = Path(__file__).parents[2]
METHODS = ("fedbip_l", "ditto", "apfl", "ifca", "flora", "fedex")


@pytest.fixture
def config(small_run: list[str]) -> Config:
    lean = {"baselines": [], "rounds": 2, "tracking.plots": False, "store_vectors": True}
    # Cohorts of two, as two workers make of three clients.
    return with_changes(read(make_parser("fit", ""), small_run), lean | {"client.cohort_size": 2})


class Killed(Processes):
    """Kills the worker that has just been told to train, at chosen times."""

    def __init__(self, make: Callable[[], Any], moments: set[int]) -> None:
        super().__init__(2, make, 1)
        self.moments, self.orders, self.killed = moments, 0, 0

    def send(self, worker: int, order: Order) -> None:
        super().send(worker, order)
        if order.verb == "train":
            self.orders += 1
            if self.orders in self.moments:
                self._workers[worker].process.kill()
                self.killed += 1


def same(one: Path, other: Path) -> None:
    first, second = result(one), result(other)
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    assert len(first[1]) > 10
    for name, numbers in first[1].items():
        np.testing.assert_array_equal(numbers, second[1][name], err_msg=name)


def test_processes_give_the_same_runs_also_when_killed(config: Config, tmp_path: Path) -> None:
    """One crew for all methods: what one has told its workers must not reach the next one."""
    able = with_changes(config, {"baselines": ["flora"]})  # its workers can change frozen weights
    crew = Killed(partial(here, able), {2, 5, 9, 14})
    with closing(Fleet(crew)) as fleet:
        assert isinstance(fleet, Executor)
        for job in METHODS:
            own = with_changes(config, {"method": job})
            alone = run(replace(own, run_dir=str(tmp_path / job / "here")), Console(quiet=True))
            others = replace(own, run_dir=str(tmp_path / job / "there"))
            same(alone, run(others, Console(quiet=True), prepared=Prepared(fleet)))
            fleet.tell(Frozen())
    assert crew.killed == 4
    assert crew.orders == 4 + 2 * 2 * len(METHODS), "two groups a round; what was lost is done once more"


def test_a_private_run_by_its_settings_alone(config: Config, tmp_path: Path) -> None:
    own = with_changes(config, JOBS["private"])
    alone = run(replace(own, run_dir=str(tmp_path / "here")), Console(quiet=True))
    spread = replace(own, executor=ExecutorConfig("processes", workers=2, threads=1))
    folder, text = tmp_path / "there", Console(record=True, width=120)
    run(replace(spread, rounds=1, run_dir=str(folder)), text)
    assert "2 worker processes, 1 threads each" in text.export_text()
    # Who trains may change at any time.
    same(alone, run(own, Console(quiet=True), resume=folder))


def test_ray_gives_the_same_run(config: Config, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    own = with_changes(config, JOBS["ditto"])
    alone = run(replace(own, run_dir=str(tmp_path / "here")), Console(quiet=True))
    spread = replace(own, executor=ExecutorConfig("ray", workers=2, threads=1))
    try:
        same(alone, run(replace(spread, run_dir=str(tmp_path / "there")), Console(quiet=True)))
        with pytest.raises(UserError, match=r"5 actors need 5 CPUs, the cluster has 2"):
            run(replace(spread, executor=replace(spread.executor, workers=5)), Console(quiet=True))
    finally:
        ray.shutdown()


def test_workers_import_neither_jax_nor_wandb(config: Config) -> None:
    with closing(Fleet(Processes(1, partial(watched, config), 1))) as fleet:
        assert fleet.join().clients == ("one-a", "three-b", "two-a")
        found = fleet.ask("imported")
    assert "torch" in found
    assert not {"jax", "jaxlib", "wandb", "optuna"} & found


class Unreliable:
    """Workers in this process that lose, delay, reorder and repeat, as drawn from a seed."""

    def __init__(self, size: int, make: Callable[[], Any], seed: int) -> None:
        self.size, self.make, self.draw = size, make, random.Random(seed)
        self.sites: dict[int, Any] = {}
        self.replies: deque[tuple[int, Reply]] = deque()
        self.faults: set[str] = set()

    def start(self, worker: int) -> None:
        self.sites[worker] = self.make()
        stale = [reply for reply in self.replies if reply[0] == worker]
        self.replies = deque(reply for reply in self.replies if reply[0] != worker)
        assert not stale, "a fleet hears a worker out before it starts another"

    def send(self, worker: int, order: Order) -> None:
        fault = self.draw.choice(("none", "none", "lost before", "lost after", "at once"))
        if order.verb == "tell" or fault == "none":
            fault = ""
        self.faults.add(fault)
        if fault == "lost before":
            self.replies.append((worker, Lost("it was cut off")))
            return
        found = getattr(self.sites[worker], order.verb)
        value = found(*order.arguments)
        reply = Done(list(value) if order.verb == "train" else value)
        late = Lost("its answer was lost") if fault == "lost after" else reply
        (self.replies.appendleft if fault == "at once" else self.replies.append)((worker, late))

    def next(self, timeout: float | None) -> tuple[int, Reply] | None:
        self.replies.rotate(self.draw.randrange(3))
        return self.replies.popleft()

    def close(self) -> None:
        self.sites.clear()


@pytest.mark.parametrize("job", ["ditto", "flora"])
def test_replies_that_are_lost_late_and_out_of_order_change_nothing(
    job: str, config: Config, tmp_path: Path
) -> None:
    own = with_changes(config, {"method": job, "client.cohort_size": 1})
    alone = run(replace(own, run_dir=str(tmp_path / "here")), Console(quiet=True))
    crew = Unreliable(3, partial(here, own), seed=1)
    fleet = Fleet(crew, retries=20)
    same(
        alone,
        run(replace(own, run_dir=str(tmp_path / "there")), Console(quiet=True), prepared=Prepared(fleet)),
    )
    assert crew.faults == {"", "lost before", "lost after", "at once"}


class Doomed(Unreliable):
    """A worker that dies of what it is told when it is started again."""

    def send(self, worker: int, order: Order) -> None:
        first = Lost("its memory was full") if order.verb in ("ask", "tell") and self.faults else Done(None)
        self.faults.add("told")
        self.replies.append((worker, first))


def test_a_worker_that_dies_of_what_it_is_told_is_given_up() -> None:
    fleet = Fleet(Doomed(1, object, seed=0), retries=2)
    fleet.tell(Frozen())
    with pytest.raises(RuntimeError, match=r"lost with its worker 3 times: its memory was full"):
        fleet.ask("ask")


class Failing(Here):
    """Cannot train a client."""

    def train(self, work: Any, *rest: Any) -> Iterator[Any]:  # type: ignore[override]
        if any(each.client == "two-a" for each in work):
            raise RuntimeError("no")
        yield from super().train(work, *rest)


class Steady(Unreliable):
    """Workers that lose nothing; their errors are replies."""

    def send(self, worker: int, order: Order) -> None:
        try:
            value = getattr(self.sites[worker], order.verb)(*order.arguments)
            reply: Reply = Done(list(value) if order.verb == "train" else value)
        except Exception as error:
            reply = Raised(error)
        self.replies.append((worker, reply))


def work_of(fleet: Executor) -> list[Work]:
    start = torch.full((fleet.join().layout.size,), 0.05)
    return [Work(client, 1, start, (), Plain()) for client in fleet.join().clients]


def test_a_group_that_fails_is_named_and_the_others_are_not(config: Config) -> None:
    fleet = Fleet(Steady(2, lambda: Failing(here(config).site), seed=0))
    work = work_of(fleet)
    company = fleet.plan(work)
    assert sorted(map(len, company.groups)) == [1, 2]
    answers = list(fleet.train(work, company))
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    assert len(failed) == 1
    assert "two-a" in failed[0].clients
    assert failed[0].reason == "its training failed: no"
    answered = {answer.client for answer in answers if isinstance(answer, Report)}
    assert answered == {each.client for each in work} - set(failed[0].clients)


def test_who_has_begun_is_waited_for_and_nobody_else_begins(config: Config) -> None:
    one_by_one = with_changes(config, {"client.cohort_size": 1})
    fleet = Fleet(Steady(2, partial(here, one_by_one), seed=0))
    work = work_of(fleet)
    times = iter((True, True, False))
    answers = list(fleet.train(work, fleet.plan(work), None, lambda: next(times)))
    assert len(answers) == 2
    # Who stops listening leaves nothing behind that the next question would take for its answer.
    training = fleet.train(work, fleet.plan(work))
    next(training)
    training.close()  # type: ignore[attr-defined]
    assert list(fleet.score(("one-a",), work[0].received[None], "test")) == ["one-a"]
    again = {answer.client for answer in fleet.train(work, fleet.plan(work)) if isinstance(answer, Report)}
    assert again == {each.client for each in work}


def test_workers_with_other_data_are_refused_by_name(config: Config) -> None:
    made = iter((config, with_changes(config, {"faults.hostile": 0.4, "faults.attack": "label_flip"})))
    fleet = Fleet(Steady(2, lambda: here(next(made)), seed=0))
    with pytest.raises(UserError, match=r"worker 1 has other data than worker 0 \(client '"):
        fleet.join()


def test_what_becomes_of_a_worker_that_dies_hangs_or_fails() -> None:
    with closing(Fleet(Processes(1, Odd, 1), retries=1, timeout=20.0)) as fleet:
        assert isinstance(fleet, Fleet)
        asked = [np.arange(3.0), np.array(2), np.zeros((0, 4), np.float32)]
        asked.append(np.ones((2, 3), ml_dtypes.bfloat16).T)
        found = fleet._all("double", asked)[0]
        for one, two in zip(asked, found, strict=True):
            np.testing.assert_array_equal(two, 2 * one, strict=True)
        with pytest.raises(RuntimeError, match=r"TwoArguments: one and two") as failed:
            fleet._all("fail")
        assert "in fail" in failed.value.__notes__[0], "where it happened"
        with pytest.raises(
            RuntimeError, match=r"lost with its worker 2 times: its process ended with signal 9"
        ):
            fleet._all("die")
        fleet._timeout = 0.2
        with pytest.raises(RuntimeError, match=r"had not answered after 0.2 s"):
            fleet._all("sleep", 60.0)
        fleet._timeout = None
        assert fleet._all("sleep", 0.0) == ["awake"]


def test_a_worker_that_cannot_begin_says_why(config: Config) -> None:
    lost = with_changes(config, {"model.path": "/nowhere"})
    with (
        closing(Fleet(Processes(1, partial(here, lost), 1))) as fleet,
        pytest.raises(UserError, match=r"nowhere"),
    ):
        fleet.join()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ExecutorConfig("processes", workers=0), "executor.workers: at least 1, got 0"),
        (ExecutorConfig("processes", gpus=0.5), "executor.gpus: means something with kind ray only"),
        (ExecutorConfig("ray", timeout=0.0), "executor.timeout: must be positive"),
        (ExecutorConfig(workers=4), "executor.kind: here has no workers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: ExecutorConfig, message: str) -> None:
    assert [line for line in settings.problems() if line.startswith(message)]


DRIVER = """
import sys
from functools import partial
from fedpl.executors.fleet import Fleet
from fedpl.executors.processes import Processes
from tests.executors.stand_ins import Odd
crew = Processes(1, Odd, 1)
fleet = Fleet(crew)
fleet._all("sleep", 0.0)
print(crew._workers[0].process.pid, flush=True)
fleet._all("sleep", 600.0)
"""


def test_workers_end_with_the_process_that_started_them() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    worker = psutil.Process(int(driver.stdout.readline()))
    driver.kill()
    driver.wait()
    worker.wait(timeout=60)
