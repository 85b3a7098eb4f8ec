"""Sites in this process: one by one and in cohorts, alike to the rounds; and shared first rounds."""

import dataclasses
import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fedpl.training.stacked.backend as stacked
from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import Columns, TextFiles
from fedpl.errors import UserError
from fedpl.executors.here import Here
from fedpl.executors.memo import FirstRoundMemo
from fedpl.executors.protocol import Executor, GoOn
from fedpl.model.hardware import Hardware
from fedpl.objectives import Ditto, FedProx, Objective, Plain
from fedpl.records.messages import Answer, Begin, Company, Frozen, Halves, Report, Work
from fedpl.runs.prepared import prepare
from fedpl.training.alone.backend import Alone
from fedpl.training.stacked.backend import Stacked
from fedpl.training.stacked.engine import Engine
from tests import bounds
from tests.waits import waits


@pytest.fixture
def config(small_model: Path, small_table: Path) -> Config:
    return Config(
        data=TextFiles((str(small_table),), Columns(split="split")),
        model=ModelConfig(path=str(small_model)),
        lora=LoraSettings(r=2, dropout=0.1),
        client=ClientConfig(batch_size=5, epochs=1),
        accelerator="cpu",
    )


def make(config: Config, size: int | str) -> Here:
    client = dataclasses.replace(config.client, cohort_size=size)  # type: ignore[arg-type]
    executor = prepare(dataclasses.replace(config, client=client)).executor
    assert isinstance(executor, Here)
    return executor


def train(executor: Executor, work: Sequence[Work]) -> dict[str, Report]:
    """Reports by client, each with a vector of its own."""
    rows = {each.client: torch.full((executor.join().layout.size,), torch.nan) for each in work}
    answers = list(executor.train(work, executor.plan(work), rows))
    for answer in answers:
        assert isinstance(answer, Report)
        assert answer.vector.data_ptr() == rows[answer.client].data_ptr(), "no number is copied"
    return {answer.client: answer for answer in answers if isinstance(answer, Report)}


def start_of(executor: Executor, value: float = 0.05) -> Tensor:
    return torch.full((executor.join().layout.size,), value)


def test_it_is_an_executor(config: Config) -> None:
    for executor in (make(config, 1), FirstRoundMemo(make(config, "auto"))):
        assert isinstance(executor, Executor)


def test_what_a_site_tells_when_it_joins(config: Config) -> None:
    census = make(config, 1).join()
    assert census.clients == ("one-a", "three-b", "two-a")
    assert [member.examples for member in census.members] == [16, 16, 16]
    assert len({member.origin for member in census.members}) == 3
    assert census.metrics[0].name == "accuracy"
    assert set(census.members[0].floor) == {"accuracy", "macro_f1"}
    assert not any("the crew" in str(part) for part in census)


def test_cohorts_report_what_one_by_one_reports(config: Config) -> None:
    alone, cohorts = make(config, 1), make(config, "auto")
    assert isinstance(alone.site.worker.backend, Alone)
    assert isinstance(cohorts.site.worker.backend, Stacked)
    size = alone.join().layout.size
    received = 0.1 * torch.randn(3, size, generator=torch.Generator().manual_seed(0))
    # Splits may differ, a client may be absent.
    work = [
        Work("three-b", 2, received[0], ("validation", "test"), Plain()),
        Work("one-a", 2, received[2], ("validation",), Plain()),
    ]
    reports = [train(executor, work) for executor in (alone, cohorts)]
    assert reports[0].keys() == reports[1].keys() == {"three-b", "one-a"}
    for client, expected in reports[0].items():
        found = reports[1][client]
        assert (found.examples, found.steps, found.scores) == (
            expected.examples,
            expected.steps,
            expected.scores,
        )
        rounding = bounds.trained(expected.steps)
        assert found.loss == pytest.approx(expected.loss, rel=rounding)
        assert min(found.seconds.train, found.seconds.evaluate) > 0
        assert (found.vector - expected.vector).norm() < rounding * expected.vector.norm()

    clients = ("two-a", "one-a")
    scores = [executor.score(clients, 3 * received[:2], "test") for executor in (alone, cohorts)]
    assert list(scores[1]) == list(clients)
    assert scores[0] == scores[1]


class Counting(Here):
    """Counts the clients of every group that trains."""

    def __init__(self, executor: Here) -> None:
        super().__init__(executor.site)
        self.calls: list[int] = []

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Tensor] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        self.calls.append(len(work))
        yield from super().train(work, company, into, go_on)


def test_first_round_is_trained_once_and_in_one_cohort(config: Config) -> None:
    counting = Counting(make(config, "auto"))
    memo = FirstRoundMemo(counting)
    start = memo.join().initial
    work = [Work(client, 1, start, (), Plain()) for client in ("one-a", "two-a", "three-b")]
    first, again = train(memo, work), train(memo, work)
    assert counting.calls == [3]
    assert all(again[client].vector.equal(report.vector) for client, report in first.items())
    other = train(memo, [each._replace(received=start + 1) for each in work[:2]])
    assert counting.calls == [3, 2]
    assert not any(report.vector.equal(first[client].vector) for client, report in other.items())


def test_first_rounds_are_repeated_only_for_the_same_work(config: Config) -> None:
    counting = Counting(make(config, "auto"))
    memo = FirstRoundMemo(counting)
    work = Work("one-a", 1, start_of(memo), (), Plain())
    known = train(memo, [work])["one-a"].vector
    for changes in ({"objective": FedProx(mu=20.0)}, {"sends": False}, {"splits": ("test",)}):
        train(memo, [work._replace(**changes)])  # type: ignore[arg-type]
    assert len(counting.calls) == 4
    residual = torch.ones(memo.join().layout.residual_size)
    memo.tell(Frozen("other", residual))
    assert not train(memo, [work._replace(frozen="other")])["one-a"].vector.equal(known)
    assert len(counting.calls) == 5
    memo.tell(Frozen())
    train(memo, [work._replace(splits=("test",))])
    assert len(counting.calls) == 5, "what was known before the shift holds again"


def test_memory_is_given_back_once_all_have_trained(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the server's step, which needs it on a GPU; not after each cohort, which takes it again."""
    executor = make(config, 1)
    seen: list[str] = []
    monkeypatch.setattr(Hardware, "give_back", lambda _: seen.append("given back"))
    work = [Work(client, 1, start_of(executor), (), Plain()) for client in ("one-a", "two-a")]
    for answer in executor.train(work, executor.plan(work)):
        assert isinstance(answer, Report)
        seen.append(answer.client)
    assert seen == ["one-a", "two-a", "given back"]


class Quick(Here):
    """Answers without training."""

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Tensor] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        yield from (Report(each.client, each.received + 1, 5, 1, 0.5, {}) for each in work)


def test_first_rounds_of_many_are_compared_at_once(config: Config) -> None:
    site = make(config, "auto").site
    company = Company((), {})

    def rounds(clients: int) -> int:
        memo = FirstRoundMemo(Quick(site))
        work = [Work(f"c{i}", 1, torch.ones(4), (), Plain()) for i in range(clients)]
        *work, other = work
        other = other._replace(received=torch.zeros(2, 4))
        found = waits(lambda: [list(memo.train([*work, other], company)) for _ in range(2)])
        starts = {id(known.work.received) for known in memo._known.values()}
        assert len(starts) == 2, "one copy for all who start at the same"
        again = [each._replace(received=torch.full((4,), 2.0)) for each in work]
        assert [float(answer.vector[0]) for answer in memo.train(again, company)] == [3.0] * len(work)
        return found

    assert rounds(40) == rounds(4)


def test_where_nothing_is_sealed_it_does_not_matter_who_sends(config: Config) -> None:
    counting = Counting(make(config, "auto"))
    memo = FirstRoundMemo(counting, sealed=False)
    work = Work("one-a", 1, start_of(memo), (), Plain())
    for sends in (True, False):
        train(memo, [work._replace(sends=sends)])
    assert counting.calls == [1]


def test_who_has_told_of_halves_has_trained_and_not_the_other_way_round(config: Config) -> None:
    counting = Counting(make(config, "auto"))
    memo = FirstRoundMemo(counting)
    work = Work("one-a", 1, start_of(memo), (), Plain())
    assert train(memo, [work])["one-a"].halves is None
    assert train(memo, [work._replace(halves=Halves(((0, 10),)))])["one-a"].halves is not None
    assert train(memo, [work])["one-a"].halves is None
    assert counting.calls == [1, 1]


def with_objective(config: Config, objective: Objective) -> Config:
    return dataclasses.replace(config, client=dataclasses.replace(config.client, objective=objective))


@pytest.mark.parametrize("size", [1, "auto"])
def test_what_clients_remember_stays_at_their_site(config: Config, size: int | str, tmp_path: Path) -> None:
    """A second round continues in another process exactly as in the one that ran the first."""
    objective = Ditto(lam=0.1)
    first, second = (make(with_objective(config, objective), size) for _ in range(2))
    first.tell(Begin("run", str(tmp_path)))
    start = start_of(first)
    work = [Work(client, 1, start, ("test",), objective) for client in ("one-a", "two-a")]
    reports = train(first, work)
    assert all(report.memory for report in reports.values())
    again = [each._replace(round=2, memory=reports[each.client].memory) for each in work]
    expected = train(first, again)
    second.tell(Begin("run", str(tmp_path)))
    found = train(second, again)
    for client, report in expected.items():
        assert found[client].vector.equal(report.vector)
        assert found[client].memory == report.memory != reports[client].memory
    # Repeating a piece of work gives the same, whatever was remembered in the meantime.
    assert train(first, again)["one-a"].memory == expected["one-a"].memory
    with pytest.raises(UserError, match=r"what client 'one-a' remembered is gone"):
        train(second, [again[0]._replace(memory="0" * 32)])


def test_work_names_its_objective(config: Config) -> None:
    for executor in (make(config, 1), make(config, "auto")):
        found = [
            train(executor, [Work("one-a", 1, start_of(executor), (), chosen)])["one-a"].vector
            for chosen in (Plain(), FedProx(mu=20.0), Plain())
        ]
        assert found[2].equal(found[0])
        assert found[1].norm() < 0.9 * found[0].norm()


def test_other_frozen_weights_than_expected_are_refused(config: Config) -> None:
    executor = make(config, 1)
    work = Work("one-a", 1, start_of(executor), (), Plain(), frozen="abc")
    with pytest.raises(
        UserError, match=r"frozen weights here are unchanged, client 'one-a' is to train on abc"
    ):
        train(executor, [work])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_cohort_is_let_go_before_the_next_one_trains(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_objective(config, Ditto())
    executor = make(config, 2)
    executor.site.worker.backend._size = 1  # type: ignore[attr-defined]
    start = start_of(executor)
    size = len(start)
    held: list[int] = []
    fit = stacked.fit_cohort

    def watch(engine: Engine, theta: Tensor, *rest: object) -> list[float]:
        held.append(sum(type(found) is Tensor and found.shape == (1, size) for found in gc.get_objects()))
        return fit(engine, theta, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(stacked, "fit_cohort", watch)
    work = [Work(client, 1, start, ("test",), Ditto()) for client in ("one-a", "two-a", "three-b")]
    rows = {each.client: torch.zeros(size) for each in work}
    gc.disable()
    try:
        list(executor.train(work, executor.plan(work), rows))
    finally:
        gc.enable()
    assert len(held) == 6
    assert held[2::2] == [held[0]] * 2
