"""Executors agree: the loop cannot tell them apart."""

import dataclasses
import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fedpl.clients.cohorts as cohorts_module
from fedpl.clients.cohorts import CohortTrainer
from fedpl.clients.engine import Engine
from fedpl.clients.hardware import Hardware
from fedpl.clients.trainer import ClientTrainer
from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import Columns, TextFiles
from fedpl.objectives import Ditto, FedProx, Objective, Plain
from fedpl.rounds.executor import CohortExecutor, Executor, Job, LocalExecutor, local_executor
from fedpl.rounds.first_round import FirstRoundMemo


@pytest.fixture
def config(small_model: Path, small_table: Path) -> Config:
    return Config(
        data=TextFiles((str(small_table),), Columns(split="split")),
        model=ModelConfig(path=str(small_model)),
        lora=LoraSettings(r=2, dropout=0.1),
        client=ClientConfig(batch_size=5, epochs=1),
    )


def make(config: Config, size: int | str) -> Executor:
    client = dataclasses.replace(config.client, cohort_size=size)  # type: ignore[arg-type]
    config = dataclasses.replace(config, client=client)
    data = config.data.load(0)
    return local_executor(ClientTrainer(config, data, Hardware(torch.device("cpu"), "32-true")))


def test_cohorts_report_what_one_by_one_reports(config: Config) -> None:
    alone, cohorts = make(config, 1), make(config, "auto")
    assert isinstance(alone, LocalExecutor)
    assert isinstance(cohorts, CohortExecutor)
    size = alone.trainer.layout.size
    received = 0.1 * torch.randn(3, size, generator=torch.Generator().manual_seed(0))
    # Rows need not follow the clients, splits may differ, a client may be absent.
    jobs = [
        Job("three-b", 0, 2, received[0], ("validation", "test")),
        Job("one-a", 2, 2, received[2], ("validation",)),
    ]
    matrices = [torch.full((3, size), torch.nan) for _ in range(2)]
    reports = [
        sorted(executor.train(iter(jobs), out), key=lambda update: update.row)
        for executor, out in zip((alone, cohorts), matrices, strict=True)
    ]
    assert [update.client for update in reports[1]] == ["three-b", "one-a"]
    for expected, found in zip(*reports, strict=True):
        assert found[:4] == expected[:4]
        assert found.loss == pytest.approx(expected.loss, rel=1e-4)
        assert found.tuned == expected.tuned
        assert min(found.train_seconds, found.evaluate_seconds) > 0
    for out in matrices:
        assert out[1].isnan().all()
    difference = (matrices[1] - matrices[0])[[0, 2]].norm(dim=1) / matrices[0][[0, 2]].norm(dim=1)
    assert difference.max() < 1e-4

    clients = ("two-a", "one-a")
    scores = [executor.score(clients, 3 * received[:2], "test") for executor in (alone, cohorts)]
    assert list(scores[1]) == list(clients)
    assert scores[0] == scores[1]


def test_first_round_is_trained_once_and_in_one_cohort(config: Config) -> None:
    class Counting(CohortExecutor):
        calls: list[int] = []  # noqa: RUF012

        def _train(self, jobs, out):  # type: ignore[no-untyped-def]
            self.calls.append(len(jobs))
            yield from super()._train(jobs, out)

    executor = make(config, "auto")
    assert isinstance(executor, CohortExecutor)
    counting = Counting(executor.cohorts)
    memo = FirstRoundMemo(counting)
    start = executor.cohorts.trainer.initial()
    clients = ("one-a", "two-a", "three-b")
    first, again = torch.zeros(3, len(start)), torch.zeros(3, len(start))
    jobs = [Job(client, row, 1, start, ()) for row, client in enumerate(clients)]
    list(memo.train(jobs, first))
    updates = list(memo.train(jobs, again))
    assert counting.calls == [3]
    assert again.equal(first)
    assert [update.client for update in updates] == list(clients)
    list(memo.train([job._replace(received=start + 1) for job in jobs[:2]], again))
    assert counting.calls == [3, 2]
    assert not again[:2].equal(first[:2])


def with_objective(config: Config, objective: Objective) -> Config:
    return dataclasses.replace(config, client=dataclasses.replace(config.client, objective=objective))


@pytest.mark.parametrize("size", [1, "auto"])
def test_what_clients_remember_can_be_taken_and_given(config: Config, size: int | str) -> None:
    """A second round continues in another executor exactly as in the one that ran the first."""
    config = with_objective(config, Ditto(lam=0.1))
    first, second = make(config, size), make(config, size)
    start = torch.full((trainer_of(first).layout.size,), 0.05)
    jobs = [Job(client, row, 1, start, ("test",)) for row, client in enumerate(("one-a", "two-a"))]
    out, again = torch.zeros(2, len(start)), torch.zeros(2, len(start))
    (update, _) = first.train(jobs, out)
    state = first.client_state("one-a")
    assert set(state) == {"personal"}
    assert second.client_state("one-a") == {}
    personal = state["personal"][None]
    assert update.tuned["test"] == first.score(["one-a"], personal, "test")["one-a"]
    jobs = [job._replace(round=2) for job in jobs]
    for client in ("one-a", "two-a"):
        second.load_client_state(client, {k: v.clone() for k, v in first.client_state(client).items()})
    list(first.train(jobs, out))
    list(second.train(jobs, again))
    assert again.equal(out)
    for client in ("one-a", "two-a"):
        assert second.client_state(client)["personal"].equal(first.client_state(client)["personal"])
    assert not first.client_state("one-a")["personal"].equal(state["personal"])
    second.load_client_state("one-a", {})
    assert second.client_state("one-a") == {}


def test_jobs_may_name_their_objective(config: Config) -> None:
    alone, cohorts = make(config, 1), make(config, "auto")
    start = torch.full((trainer_of(alone).layout.size,), 0.05)
    objectives = (None, FedProx(mu=20.0), Plain())
    for executor in (alone, cohorts):
        out = torch.zeros(3, len(start))
        jobs = [Job("one-a", row, 1, start, (), chosen) for row, chosen in enumerate(objectives)]
        updates = list(executor.train(jobs, out))
        assert [update.row for update in updates] == [0, 1, 2]
        assert out[2].equal(out[0])
        assert out[1].norm() < 0.9 * out[0].norm()


def test_first_rounds_are_repeated_only_for_the_same_work(config: Config) -> None:
    executor = make(with_objective(config, Ditto(lam=0.1)), "auto")
    trained: list[str] = []

    class Watching(CohortExecutor):
        def _train(self, jobs, out):  # type: ignore[no-untyped-def]
            trained.extend(job.client for job in jobs)
            yield from super()._train(jobs, out)

    memo = FirstRoundMemo(Watching(executor.cohorts))  # type: ignore[union-attr]
    start = torch.full((trainer_of(executor).layout.size,), 0.05)
    out, again = torch.zeros(1, len(start)), torch.zeros(1, len(start))
    job = Job("one-a", 0, 1, start, ())
    list(memo.train([job], out))
    after = memo.client_state("one-a")["personal"].clone()

    list(memo.train([job], again))
    assert len(trained) == 2, "the client remembers something now: its round is another one"
    memo.load_client_state("one-a", {})
    list(memo.train([job], out))
    memo.load_client_state("one-a", {})
    list(memo.train([job], again))
    assert len(trained) == 3
    assert again.equal(out)
    assert memo.client_state("one-a")["personal"].equal(after)

    memo.load_client_state("one-a", {})
    list(memo.train([job._replace(objective=Plain())], again))
    assert len(trained) == 4
    memo.load_client_state("one-a", {})
    memo.shift(torch.ones(trainer_of(executor)._base.size))
    list(memo.train([job._replace(objective=Plain())], again))
    assert len(trained) == 5
    assert not again.equal(out)
    memo.shift(None)
    list(memo.train([job._replace(objective=Plain())], again))
    assert len(trained) == 5, "what was known before the shift holds again"


def trainer_of(executor: Executor) -> ClientTrainer:
    return executor.trainer if isinstance(executor, LocalExecutor) else executor.cohorts.trainer  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_cohort_is_let_go_before_the_next_one_trains(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = make(with_objective(config, Ditto()), 1)
    executor = CohortExecutor(CohortTrainer(trainer_of(executor)))
    size = trainer_of(executor).layout.size
    held: list[int] = []
    fit = cohorts_module.fit_cohort

    def watch(engine: Engine, theta: Tensor, *rest: object) -> list[float]:
        held.append(sum(type(found) is Tensor and found.shape == (1, size) for found in gc.get_objects()))
        return fit(engine, theta, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cohorts_module, "fit_cohort", watch)
    start = torch.full((size,), 0.05)
    jobs = [Job(client, row, 1, start, ("test",)) for row, client in enumerate(("one-a", "two-a", "three-b"))]
    gc.disable()
    try:
        list(executor.train(jobs, torch.zeros(3, size)))
    finally:
        gc.enable()
    assert len(held) == 6
    assert held[2::2] == [held[0]] * 2
