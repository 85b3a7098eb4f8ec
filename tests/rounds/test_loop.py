"""The rounds with real training on a small model."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fedpl.conditions import ParticipationConfig
from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import Columns, FederatedData, TextFiles
from fedpl.executors.here import Here
from fedpl.executors.memo import FirstRoundMemo
from fedpl.executors.protocol import GoOn
from fedpl.method import Method
from fedpl.records.messages import Answer, Census, Company, Work
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import RoundResult, run_rounds
from fedpl.runs.prepared import prepare
from fedpl.server import Aggregator, BestOf, FactorWise, FedBip, Local, Residual, SameChoice, Uniform
from fedpl.server.state import TaskVectors
from tests import bounds

FEDBIP = Aggregator(weighting=FedBip())


@pytest.fixture
def config(small_model: Path, small_table: Path) -> Config:
    return Config(
        data=TextFiles((str(small_table),), Columns(split="split")),
        model=ModelConfig(path=str(small_model)),
        lora=LoraSettings(r=2),
        client=ClientConfig(batch_size=5, epochs=1, cohort_size=1),
        accelerator="cpu",
    )


def federation(config: Config, aggregator: Aggregator, data: FederatedData | None = None) -> Federation:
    return Federation(Method("method", aggregator=aggregator), prepare(config, data).executor)


def last(rounds: Iterator[RoundResult]) -> tuple[RoundResult, np.ndarray]:
    """The last round and the aggregates after it."""
    result = deque(rounds, maxlen=1).pop()
    return result, np.array(result.state.personal)


def test_a_round_is_receive_train_compare_mix(config: Config) -> None:
    """θ̄ᵢ + Σₖ pᵢₖ τₖ, computed here from the recorded parts of two rounds."""
    run = federation(config, FEDBIP)
    before = np.tile(run.census.initial.numpy(), (3, 1)).astype(np.float64)
    for result in run_rounds(run, 2):
        p, vectors = result.weights[0].astype(np.float64), result.vectors.numpy().astype(np.float64)
        bounds.within(result.state.personal, before + p @ vectors, bounds.product(p, vectors, before))
        before = np.array(result.state.personal, dtype=np.float64)
        tau = result.vectors.numpy().astype(np.float64)
        unit = tau / np.linalg.norm(tau, axis=1, keepdims=True)
        bounds.within(result.similarity[0], unit @ unit.T, bounds.cosine(bounds.chained(tau.shape[1])))


def test_task_vectors_start_at_what_the_client_received(config: Config) -> None:
    """With identity weights the aggregate is the tuned model: θ̄ᵢ + τᵢ = θᵢ."""
    result, _ = last(run_rounds(federation(config, Aggregator(weighting=Local())), 2))
    for split in ("validation", "test"):
        assert result.aggregated[split] == result.tuned(split)


def order_error(result: RoundResult, personal: np.ndarray) -> np.ndarray:
    """What sums in another order may change in two rounds: weights, aggregates, and training from there."""
    tau, n = np.abs(result.vectors.numpy()), len(personal)
    weights = bounds.shares(result.similarity[0], bounds.cosine(bounds.chained(tau.shape[1])))
    mixed = bounds.product(np.abs(result.weights[0]), tau, personal, error=weights)
    length = np.linalg.norm(tau, axis=1).max()
    return 2 * 2 * mixed + bounds.trained(int(result.reports[0].steps)) * length * np.ones((n, 1))


def test_order_of_clients_does_not_matter(config: Config) -> None:
    data = config.data.load(0)
    backwards = dataclasses.replace(data, clients=data.clients[::-1])
    result, forward = last(run_rounds(federation(config, FEDBIP, data), 2))
    _, reversed_ = last(run_rounds(federation(config, FEDBIP, backwards), 2))
    bounds.within(reversed_[::-1], forward, order_error(result, forward))


class Backwards(Here):
    """Trains the last client first."""

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        company = super().plan(work, capacity)
        return company._replace(groups=company.groups[::-1])


def test_order_of_training_does_not_matter_at_all(config: Config) -> None:
    run = federation(config, FEDBIP)
    first, forward = last(run_rounds(run, 2))
    again = dataclasses.replace(run, executor=Backwards(run.executor.site))
    second, backward = last(run_rounds(again, 2))
    assert np.array_equal(forward, backward)
    assert [u.client for u in first.reports] == [u.client for u in second.reports] == list(run.clients)


def test_identical_clients_make_fedbip_equal_to_fedavg(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same data and, the client's name taken out of the key, the same streams."""
    import fedpl.training.partitions as partitions
    from fedpl.randomness import derive_seed

    monkeypatch.setattr(partitions, "derive_seed", lambda s, stage, r=0, client="": derive_seed(s, stage, r))
    one = config.data.load(0).clients[0]
    twins = tuple(dataclasses.replace(one, id=name) for name in ("x", "y", "z"))
    data = FederatedData(twins, ("no", "yes"))
    results = {}
    for name, aggregator in {"fedbip": FEDBIP, "fedavg": Aggregator(weighting=Uniform())}.items():
        results[name], personal = last(run_rounds(federation(config, aggregator, data), 2))
        weights = np.full((3, 3), 1 / 3)
        cosine = bounds.cosine(bounds.chained(personal.shape[1]))
        bounds.within(results[name].weights[0], weights, bounds.shares(np.ones((3, 3)), cosine))
        bounds.within(personal, np.tile(personal[0], (3, 1)), order_error(results[name], personal))
        results[name + " personal"] = personal
    allowed = order_error(results["fedbip"], results["fedbip personal"])
    bounds.within(results["fedbip personal"], results["fedavg personal"], allowed)


def test_conflicting_clients_are_told_apart(config: Config) -> None:
    longer = dataclasses.replace(config, client=ClientConfig(batch_size=5, epochs=6, cohort_size=1))
    result, _ = last(run_rounds(federation(longer, FEDBIP), 2))
    one, three, two = 0, 1, 2  # ids in sorted order: one-a, three-b, two-a
    similarity = result.similarity[0]
    assert similarity[one, two] > similarity[one, three]
    assert similarity[one, two] > similarity[two, three]


def test_the_test_split_is_scored_only_at_the_end(config: Config) -> None:
    run = dataclasses.replace(federation(config, FEDBIP), evaluate_every=2)
    due = [set(result.aggregated) for result in run_rounds(run, 3)]
    assert due == [set(), {"validation"}, {"validation", "test"}]
    never = dataclasses.replace(run, evaluate_every=0)
    assert [never.splits_due(round, 2) for round in (1, 2)] == [(), ("test",)]


def test_every_report_reaches_the_listener(config: Config) -> None:
    heard: list[tuple[int, str]] = []
    listen = dataclasses.replace(
        federation(config, FEDBIP), heard=lambda round, report: heard.append((round, report.client))
    )
    list(run_rounds(listen, 2))
    assert heard == [(round, client) for round in (1, 2) for client in listen.clients]


def test_traffic_and_steps_are_counted(config: Config) -> None:
    run = federation(config, FEDBIP)
    result = next(run_rounds(run, 1))
    assert result.bytes_up == result.bytes_down == 3 * run.census.layout.size * 4
    assert [update.steps for update in result.reports] == [4, 4, 4]
    assert [update.examples for update in result.reports] == [16, 16, 16]


class Counting(Here):
    """Counts the clients it trains."""

    trained = 0

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, torch.Tensor] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        for answer in super().train(work, company, into, go_on):
            self.trained += 1
            yield answer


def test_a_shared_first_round_is_trained_once_and_changes_nothing(config: Config) -> None:
    run = federation(config, FEDBIP)
    counting = Counting(run.executor.site)
    shared = dataclasses.replace(run, executor=FirstRoundMemo(counting))
    for aggregator in (FEDBIP, Aggregator(weighting=Uniform())):
        method = Method("method", aggregator=aggregator)
        _, expected = last(run_rounds(dataclasses.replace(run, method=method), 2))
        _, found = last(run_rounds(dataclasses.replace(shared, method=method), 2))
        assert np.array_equal(found, expected)
    assert counting.trained == 3 + 3 + 3


def test_a_first_round_from_elsewhere_is_trained_anew(config: Config) -> None:
    run = federation(config, FEDBIP)

    class Elsewhere(FirstRoundMemo):
        def join(self) -> Census:
            census = super().join()
            return census._replace(initial=census.initial + self.moved)

    counting = Counting(run.executor.site)
    memo = Elsewhere(counting)
    for memo.moved in (0, 1, 1):
        list(run_rounds(dataclasses.replace(run, executor=memo), 1))
    assert counting.trained == 6


PARTIAL = ParticipationConfig(fraction=0.4, min_clients=2)
RULES = {
    "fedbip": Aggregator(),
    "fedbip-l": Aggregator(granularity="block"),
    "local": Aggregator(weighting=Local()),
}


@pytest.mark.parametrize("rule", RULES)
def test_absent_clients_keep_their_aggregate_bit_for_bit(rule: str, toy: Callable[..., Federation]) -> None:
    run = toy(participation=PARTIAL, aggregator=RULES[rule])
    before = np.tile(run.census.initial.numpy(), (7, 1))
    everybody: set[int] = set()
    for result in run_rounds(run, 8):
        after = np.array(result.state.personal)
        present = [run.clients.index(report.client) for report in result.reports]
        absent = sorted(set(range(7)) - set(present))
        assert len(present) == result.drawn == 3
        assert np.array_equal(after[absent].view(np.int32), before[absent].view(np.int32))
        assert (after[present] != before[present]).any(1).all()
        everybody |= set(present)
        before = after
    assert everybody == set(range(7))


def test_the_one_model_of_federated_averaging_is_everybodys(toy: Callable[..., Federation]) -> None:
    """Whoever was away receives what the others have made of it."""
    for result in run_rounds(toy(participation=PARTIAL, aggregator=Aggregator(weighting=Uniform())), 3):
        personal = np.asarray(result.state.personal)
        assert np.array_equal(personal, np.tile(personal[0], (len(personal), 1)))


def test_clients_that_take_part_choose_their_model(toy: Callable[..., Federation]) -> None:
    """IFCA: whoever takes part receives the model of its choice; the traffic counts all models."""
    rule = Aggregator(
        weighting=SameChoice(), receive=BestOf(models=2, spread=0.5), combine=FactorWise("models")
    )
    run = toy(participation=PARTIAL, aggregator=rule)
    chosen: dict[str, int] = {}
    personal = np.tile(run.census.initial.numpy(), (7, 1))
    for result in run_rounds(run, 6):
        labels = np.asarray(result.state.of("receive")["choices"])
        models = np.asarray(result.state.of("receive")["models"])
        rows = [run.clients.index(report.client) for report in result.reports]
        after = np.array(result.state.personal)
        absent = sorted(set(range(7)) - set(rows))
        assert np.array_equal(after[absent], personal[absent])
        for row in rows:
            chosen[run.clients[row]] = int(labels[row])
            model = models[labels[row]]  # the step to it is added to where the client was
            bounds.within(after[row], model, bounds.gamma(3) * (np.abs(model) + np.abs(personal[row])))
        assert result.bytes_down == 2 * result.bytes_up
        personal = after
    assert set(chosen) == set(run.clients)


def test_the_frozen_weights_are_moved_by_the_server_s_residual(toy: Callable[..., Federation]) -> None:
    run = toy(aggregator=Aggregator(weighting=Uniform(), combine=Residual()))
    residuals = [np.array(result.state.residual) for result in run_rounds(run, 3)]
    first, *moved = run.executor.shifts
    assert first is None, "what another method left is taken away"
    assert np.abs(residuals[0]).max() > 0
    # After every round, so that its aggregates are scored as clients will use them.
    assert [shift.numpy().tolist() for shift in moved] == [values.tolist() for values in residuals]


def test_participants_are_aggregated_as_if_the_others_did_not_exist(toy: Callable[..., Federation]) -> None:
    run = toy(participation=PARTIAL)
    result = next(run_rounds(run, 3))
    rows = [run.clients.index(report.client) for report in result.reports]
    assert list(result.rows) == rows
    tau = result.vectors.numpy().astype(np.float64)
    unit = tau / np.linalg.norm(tau, axis=1, keepdims=True)
    similarity = unit @ unit.T
    p, initial = similarity / similarity.sum(1, keepdims=True), run.census.initial.numpy()
    error = bounds.shares(similarity, bounds.cosine(bounds.chained(tau.shape[1])))
    allowed = bounds.product(p, tau, initial, error=error)
    bounds.within(np.asarray(result.state.personal)[rows], initial + p @ tau, allowed)


def test_ages_and_what_was_sent_last(toy: Callable[..., Federation]) -> None:
    """A rule that looks at the absent sees their rows as they sent them, and how old these are."""
    seen: list[TaskVectors] = []

    class Watching(Aggregator):
        def update(self, state, vectors, layout):  # type: ignore[no-untyped-def]
            seen.append(vectors._replace(matrix=np.array(vectors.matrix)))
            return super().update(state, vectors, layout)

    run = toy(participation=PARTIAL, aggregator=Watching(stale_discount=0.5))
    last = {row: (-1, np.zeros(run.census.layout.size)) for row in range(7)}
    for result in run_rounds(run, 8):
        vectors = seen[-1]
        last = {row: (age + (age >= 0), tau) for row, (age, tau) in last.items()}
        for report in result.reports:
            row = run.clients.index(report.client)
            last[row] = 0, result.vectors[row].numpy().copy()
        assert vectors.age.tolist() == [age for age, _ in last.values()]
        assert vectors.mask.tolist() == [age == 0 for age, _ in last.values()]
        assert np.array_equal(vectors.matrix, np.stack([tau for _, tau in last.values()]))
        sizes = zip(run.clients, last.values(), strict=True)
        assert vectors.num_examples.tolist() == [(10 + len(name)) * (age >= 0) for name, (age, _) in sizes]


def test_traffic_counts_who_takes_part(toy: Callable[..., Federation]) -> None:
    run = toy(participation=PARTIAL)
    for result in run_rounds(run, 2):
        assert result.bytes_up == result.bytes_down == 3 * run.census.layout.size * 4


def test_partial_rounds_by_real_training(config: Config) -> None:
    """Who is absent is not trained and has no tuned model; everybody's aggregate is scored."""
    run = dataclasses.replace(federation(config, FEDBIP), participation=ParticipationConfig(fraction=0.5))
    counting = Counting(run.executor.site)
    result, _ = last(run_rounds(dataclasses.replace(run, executor=counting), 2))
    assert counting.trained == 4
    assert set(result.tuned("test")) == {update.client for update in result.reports}
    assert set(result.aggregated["test"]) == set(run.clients)


@pytest.mark.parametrize("size", [1, 3])
def test_a_client_whose_data_crash_training_is_found_among_others(
    config: Config, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that the model does not have: an error of torch in the middle of the cohort."""
    config = dataclasses.replace(config, client=dataclasses.replace(config.client, cohort_size=size))
    data = config.data.load(config.seed)
    run = dataclasses.replace(
        federation(config, FEDBIP, data), participation=ParticipationConfig(on_client_error="skip")
    )
    own = run.executor.site.worker.partitions.examples["two-a", "train"].sequences
    own.flat[own.begin[3] : own.begin[3] + own.lengths[3]] = 10_000
    start = np.tile(run.census.initial.numpy(), (3, 1))
    result, personal = last(run_rounds(run, 2))
    assert [update.client for update in result.reports] == ["one-a", "three-b"]
    assert "its training failed: IndexError" in result.rejected["two-a"]
    assert "training 'two-a' failed" in caplog.text
    assert np.array_equal(personal[2], start[2])
    assert np.isfinite(personal).all()
    assert set(result.aggregated["test"]) == set(run.clients)
    with pytest.raises(IndexError) as raised:
        list(run_rounds(dataclasses.replace(run, participation=ParticipationConfig()), 1))
    assert "while training" in raised.value.__notes__[-1]
