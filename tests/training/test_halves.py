"""What two halves of a client's examples agree on."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fedpl.data import ClientData, FederatedData, Split
from fedpl.objectives import Ditto, Objective, Plain
from fedpl.records.centring import head_of
from fedpl.records.layout import merge_ranges
from fedpl.records.messages import Halves
from fedpl.training.backend import Backend
from fedpl.training.halves import halves
from fedpl.training.session import Assignment, Fit
from fedpl.training.stacked.backend import Stacked
from tests.training.conftest import CPU
from tests.training.facade import ClientTrainer, CohortTrainer

WHOLE = Plain()
Maker = Callable[..., ClientTrainer]


def assigned(trainer: ClientTrainer, asked: bool = True) -> list[Assignment]:
    clients = sorted({client for client, _ in trainer.tokens})
    about = Halves(((0, trainer.layout.size),)) if asked else None
    return [Assignment(client, trainer.initial(), halves=about) for client in clients]


def test_halves_share_nothing(make_trainer: Maker) -> None:
    parts = make_trainer(batch_size=100, epochs=1).partitions
    for client in ("c1", "c3", "c4"):
        number = len(parts.examples[client, "train"])
        seen = []
        for round in (1, 2):
            one, other = (
                [i for batch in parts.order(client, round, half=half) for i in batch] for half in (0, 1)
            )
            assert sorted(one + other) == list(range(number))
            assert 0 <= len(one) - len(other) <= 1
            seen.append(sorted(one))
        assert (seen[0] != seen[1]) == (client != "c3"), "drawn anew; one example can be dealt in one way"
        assert parts.order(client, 1, half=0) == parts.order(client, 1, half=0)


def test_halves_that_hold_the_same_agree(make_trainer: Maker, people: FederatedData) -> None:
    same = Split(("good crew",) * 4, (0,) * 4)
    few = Split(("good crew", "late flight", "old seat", "a nice plane"), (0, 1, 1, 0))
    clients = tuple(ClientData(name, split, split, split) for name, split in (("same", same), ("other", few)))
    config = make_trainer(batch_size=8).config
    trainer = ClientTrainer(config, FederatedData(clients, people.classes), CPU)
    told = halves(trainer.backend, assigned(trainer), 1, Plain())
    assert told["same"] == pytest.approx(1, abs=1e-5)
    assert told["other"] < 0.99


def test_a_cohort_tells_what_each_client_alone_does(make_trainer: Maker) -> None:
    trainer = make_trainer()
    together = halves(CohortTrainer(trainer).backend, assigned(trainer), 1, Plain())
    alone = {}
    for each in assigned(trainer):
        alone |= halves(trainer.backend, [each], 1, Plain())
    assert together.keys() == alone.keys() == {f"c{i}" for i in range(8)} - {"c3"}  # that one has one example
    for client, cosine in alone.items():
        assert together[client] == pytest.approx(cosine, abs=2e-3)
        assert -1 <= cosine <= 1
    assert len({round(cosine, 2) for cosine in alone.values()}) > 3


@pytest.mark.parametrize("objective", [Plain(), Ditto()])
def test_training_itself_is_what_it_was(objective: Objective, make_trainer: Maker) -> None:
    """Nor does who is not asked differ from who is, in what it remembers or how many steps it counts."""

    def fitted(asked: bool) -> tuple[torch.Tensor, list[Fit]]:
        cohort = CohortTrainer(trainer)
        cohort.size = 8
        ((places, theta, fits),) = cohort.worker.fit(assigned(trainer, asked), 1, objective)
        back = sorted(range(8), key=places.__getitem__)
        return theta[back], [fits[i] for i in back]

    trainer = make_trainer()
    (theta, fits), (same, others) = fitted(True), fitted(False)
    assert torch.equal(theta, same)
    assert [fit.halves is None for fit in fits] == [i == 3 for i in range(8)]
    for fit, other in zip(fits, others, strict=True):
        assert other.halves is None
        assert (fit.steps, fit.loss) == (other.steps, other.loss)
        assert (fit.state is None) == (other.state is None)
        for name, value in (fit.state or {}).items():
            assert torch.equal(value, (other.state or {})[name])


def test_only_who_is_asked_tells(make_trainer: Maker) -> None:
    trainer = make_trainer()
    every = assigned(trainer)
    some = [each if each.client in ("c1", "c4") else each._replace(halves=None) for each in every]
    assert halves(CohortTrainer(trainer).backend, some, 1, Plain()).keys() == {"c1", "c4"}


def test_columns_are_those_that_are_asked_for(make_trainer: Maker) -> None:
    """A frozen factor moves nowhere; the whole is what its parts are, weighed by how far each moves."""
    trainer = make_trainer()
    (entry, *_), head = trainer.layout.entries, [e for e in trainer.layout.entries if e.kind == "head"]

    def told(*ranges: tuple[int, int], objective: Objective = WHOLE) -> float:
        each = assigned(trainer)[4]._replace(halves=Halves(ranges))
        return halves(trainer.backend, [each], 1, objective)[each.client]

    ends = [(e.start, e.stop) for e in head]
    rest = (0, min(start for start, _ in ends))
    low, whole, high = sorted((told(*ends), told((0, trainer.layout.size)), told(rest)))
    assert low < whole < high
    assert entry.kind == "lora_A"
    assert told((entry.start, entry.stop), objective=Plain(train=("lora_B", "head"))) == 0


def test_it_is_the_clients_own_learning_rate(make_trainer: Maker) -> None:
    """A half is trained as the whole is: with a rate of its own where it has one."""
    config = make_trainer().partitions
    assert config.learner("c1", 1, half=1).rate == config.learner("c1", 1).rate
    assert config.learner("c1", 1, half=1).stream != config.learner("c1", 1, half=0).stream
    assert replace(config, seed=1).order("c1", 1, half=0) != config.order("c1", 1, half=0)


def test_of_a_centred_head_it_is_what_class_frequencies_do_not_move(
    make_trainer: Maker, people: FederatedData
) -> None:
    """By both backends; the rest of the columns is as it is, and so are heads of two classes."""
    trainer = make_trainer()
    head = head_of(trainer.layout)
    assert head is not None
    ranges = merge_ranges(sorted(head, key=lambda entry: entry.start))

    def told(backend: Backend, *columns: tuple[int, int], centred: bool = True) -> dict[str, float]:
        every = [each._replace(halves=Halves(columns, centred)) for each in assigned(trainer)]
        groups = [every] if isinstance(backend, Stacked) else [[each] for each in every]
        return {k: v for group in groups for k, v in halves(backend, group, 1, Plain()).items()}

    alone, together = (told(each, *ranges) for each in (trainer.backend, CohortTrainer(trainer).backend))
    plain = told(trainer.backend, *ranges, centred=False)
    assert max(abs(alone[client] - plain[client]) for client in plain) > 0.05
    for client, cosine in alone.items():
        assert together[client] == pytest.approx(cosine, abs=5e-3)
    rest = (0, ranges[0][0])
    assert told(trainer.backend, rest) == told(trainer.backend, rest, centred=False)
    clients = tuple(
        ClientData(each.id, *(Split(each.train.texts, tuple(label % 2 for label in each.train.labels)),) * 3)
        for each in people.clients
    )
    trainer = ClientTrainer(trainer.config, FederatedData(clients, ("x", "y")), CPU)
    whole = (0, trainer.layout.size)
    assert told(trainer.backend, whole) == told(trainer.backend, whole, centred=False)
