"""Executors agree: the loop cannot tell them apart."""

import dataclasses
from pathlib import Path

import pytest
import torch

from fedpl.clients.hardware import Hardware
from fedpl.clients.trainer import ClientTrainer
from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import Columns, TextFiles
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

        def _train(self, round, jobs, out):  # type: ignore[no-untyped-def]
            self.calls.append(len(jobs))
            yield from super()._train(round, jobs, out)

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
