"""What clients minimise: the same alone and in cohorts, and what the formulas say."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fedpl.config import ClientConfig, Config, PerClient
from fedpl.errors import UserError
from fedpl.objectives import APFL, Ditto, FedALA, FedDPA, FedProx, FedRep, Objective, PFedGraph, Plain
from fedpl.objectives.models import Duo
from fedpl.objectives.phases import Align, Blend, Mixture, Phase, Pull
from fedpl.problems import problems
from fedpl.training.session import Assignment, Fit, LocalSession
from tests import bounds
from tests.training.facade import ClientTrainer, CohortTrainer
from tests.training.stacked.test_cohorts import TRAINED, relative, starts, trainer_clients

Maker = Callable[..., ClientTrainer]
Rounds = Sequence[Sequence[int]]
WHO = (1, 4, 3, 6)


def alone(trainer: ClientTrainer, rounds: Rounds) -> tuple[Tensor, list[Fit]]:
    """τ of the last round's clients and what they report, trained one by one; every round starts anew."""
    ids, start = trainer_clients(trainer), starts(trainer)
    theta = torch.empty_like(start)
    for number, clients in enumerate(rounds, 1):
        fits = [trainer.fit(ids[i], start[i], theta[i], number) for i in clients]
        tau = (theta - start)[list(clients)]
        start = start + 0.01 * number  # what they receive next is not what they sent
    return tau, fits


def together(trainer: ClientTrainer, rounds: Rounds) -> tuple[Tensor, list[Fit]]:
    """The same in cohorts."""
    ids, start = trainer_clients(trainer), starts(trainer)
    cohorts = CohortTrainer(trainer)
    for number, clients in enumerate(rounds, 1):
        tau = torch.full((len(clients), trainer.layout.size), torch.nan)
        fits: list[Any] = [None] * len(clients)
        for places, theta, found in cohorts.fit([Assignment(ids[i], start[i]) for i in clients], number):
            for place, row, fit in zip(places, theta, found, strict=True):
                tau[place], fits[place] = row - start[clients[place]], fit
        start = start + 0.01 * number
    return tau, fits


def adapters(fit: Fit) -> Sequence[Tensor]:
    """Those of the model that the client uses, if it is another than the one it sends."""
    if fit.tuned is None:
        return ()
    return fit.tuned[:2] if isinstance(fit.tuned, Duo) else (fit.tuned,)


def columns(trainer: ClientTrainer, *kinds: str) -> Tensor:
    """Which columns hold tensors of these kinds."""
    chosen = torch.zeros(trainer.layout.size, dtype=torch.bool)
    for entry in trainer.layout.entries:
        chosen[entry.start : entry.stop] = entry.kind in kinds
    return chosen


def one_round(make_trainer: Maker, objective: Objective, **settings: Any) -> tuple[Tensor, list[Fit]]:
    return together(make_trainer(objective=objective, max_steps=4, **settings), [WHO])


OBJECTIVES = {
    "ffa": Plain(train=("lora_B", "head")),
    "prox": FedProx(mu=1.0),
    "prox-ffa": FedProx(mu=1.0, train=("lora_B", "head")),
    "amp": FedProx(mu=1.0, start="own"),
    "amp-ffa": FedProx(mu=30.0, start="own", train=("lora_B", "head")),
    "pfedgraph": PFedGraph(lam=1.0),
    "pfedgraph-own": PFedGraph(lam=1.0, start="own"),
    "fedrep": FedRep(head_epochs=3),
    "ditto": Ditto(lam=1.0, epochs=1),
    "apfl": APFL(alpha=0.4, alpha_lr=1.0),
    "apfl-fixed": APFL(alpha=0.4, adaptive=False),
    "fedala": FedALA(eta=20.0, epochs=2),
    "fedala-top": FedALA(eta=20.0, portion=1.0, blocks=2),
    "feddpa": FedDPA(share=0.3),
    "feddpa-final": FedDPA(variant="F"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_cohort_equals_one_by_one(make_trainer: Maker, name: str) -> None:
    """Over two rounds, the second with a newcomer and without one who was there."""
    rounds = [(0, 1, 2), (3, 1, 0)]
    settings = {"objective": OBJECTIVES[name], "model_dropout": True, "max_steps": 4}
    trainers = [make_trainer(**settings) for _ in range(2)]
    (expected, reports), (found, fits) = alone(trainers[0], rounds), together(trainers[1], rounds)
    assert relative(found, expected) < TRAINED
    assert [fit.steps for fit in fits] == [fit.steps for fit in reports]
    assert [fit.loss for fit in fits] == pytest.approx([fit.loss for fit in reports], rel=TRAINED)
    for fit, report in zip(fits, reports, strict=True):
        assert (fit.tuned is None) == (report.tuned is None)
        for row, expected_row in zip(adapters(fit), adapters(report), strict=True):
            assert relative(row[None], expected_row[None]) < TRAINED
    kept, states = trainers[0].states, trainers[1].states
    assert states.keys() == kept.keys()
    for client, state in kept.items():
        for key, value in state.items():
            apart = (states[client][key] - value).double().norm()
            assert apart <= TRAINED * value.double().norm(), key


@pytest.mark.parametrize(
    "name", ["ffa", "prox", "pfedgraph-own", "fedrep", "ditto", "apfl", "fedala", "feddpa"]
)
def test_company_does_not_matter(make_trainer: Maker, name: str) -> None:
    objective = OBJECTIVES[name]
    reference, _ = together(make_trainer(objective=objective, max_steps=5), [(0, 1, 4, 6)] * 2)
    found, _ = together(make_trainer(objective=objective, max_steps=5, cohort_size=2), [(6, 1)] * 2)
    assert relative(found, reference[[3, 1]]) < TRAINED


@pytest.mark.parametrize("penalty", [Pull, Align])
def test_gradients_of_penalties(penalty: Any) -> None:
    torch.manual_seed(0)
    theta = torch.randn(3, 7, requires_grad=True)
    term = penalty(torch.randn(3, 7), 0.7)
    term.value(theta).sum().backward()
    torch.testing.assert_close(term.gradient(theta.detach()), theta.grad)


def test_values_of_penalties() -> None:
    theta, other = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert float(Pull(other, 0.5).value(theta)) == pytest.approx(0.25 * (9 + 4))
    assert float(Align(other, 0.5).value(theta)) == pytest.approx(0.5 * (1 - 0.8))
    assert Align(other, 0.5).gradient(torch.zeros(1, 2)).isfinite().all()


@pytest.mark.parametrize("view", [Mixture(torch.randn(3, 7), torch.rand(3, 1)), Blend(*torch.randn(2, 3, 7))])
def test_gradients_through_views(view: Mixture | Blend) -> None:
    theta = torch.rand(3, 7, requires_grad=True)
    target = torch.randn(3, 7)
    view.point(theta).backward(target)
    gradient = target.clone()
    view.pull_back(theta.detach(), gradient)
    torch.testing.assert_close(gradient, theta.grad)


def test_the_share_of_a_mixture_follows_its_gradient() -> None:
    share = torch.full((2, 1), 0.5, requires_grad=True)
    base, theta, slope = torch.randn(3, 2, 5)
    torch.lerp(base, theta, share).backward(slope)
    view = Mixture(base, share.detach().clone(), rate=0.01)
    view.pull_back(theta, slope.clone())
    assert share.grad is not None
    torch.testing.assert_close(view.share, 0.5 - 0.01 * share.grad)
    for _ in range(9):
        view._replace(rate=100.0).pull_back(theta, slope.clone())
    assert set(view.share.flatten().tolist()) <= {0.0, 1.0}


def test_what_is_frozen_stays_bit_for_bit(make_trainer: Maker) -> None:
    """Weight decay included, for both optimisers; nothing frozen counts in the clipped norm."""
    for optimizer in ("adamw", "sgd"):
        objective = FedProx(mu=3.0, train=("lora_B", "head"))
        settings = {"optimizer": optimizer, "weight_decay": 0.5, "lr": 0.01, "gradient_clip": 0.01}
        settings["max_steps"] = 2
        trainer = make_trainer(objective=objective, **settings)
        for tau, _ in (alone(trainer, [WHO]), together(trainer, [WHO])):
            assert not tau[:, columns(trainer, "lora_A")].any()
            for kind in ("lora_B", "head"):
                assert tau[:, columns(trainer, kind)].abs().amax(1).min() > 1e-5


def test_fedprox_is_the_gradient_of_half_mu_squared_distance(make_trainer: Maker) -> None:
    """Without data's gradient (all weights of the loss equal), SGD contracts to the anchor as 1 − lr·mu."""
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "gradient_clip": 0.0}
    settings |= {"lr": 0.1, "head_lr": 0.1, "max_steps": 2, "epochs": 9}
    trainer = make_trainer(objective=FedProx(mu=2.0), **settings)
    once, plain = (make_trainer(objective=Plain(), **settings | {"max_steps": n}) for n in (1, 2))
    (client,), start = ["c1"], starts(trainer)[1]
    first, second, without = (torch.empty_like(start) for _ in range(3))
    once.fit(client, start, first, 1)  # at the anchor the penalty has no gradient: the first step is plain
    trainer.fit(client, start, second, 1)
    plain.fit(client, start, without, 1)
    # The same gradients twice: what differs are the roundings of two steps.
    rounding = bounds.gamma(2 * 4) * float(second.abs().max())
    torch.testing.assert_close(second, without - 0.1 * 2.0 * (first - start), rtol=0, atol=rounding)
    assert (second - without).abs().max() > 1e-3


def test_a_stronger_pull_keeps_clients_nearer(make_trainer: Maker) -> None:
    norms = [
        one_round(make_trainer, objective)[0].norm(dim=1)
        for objective in (Plain(), FedProx(mu=1.0), FedProx(mu=30.0))
    ]
    assert (norms[0] > norms[1]).all()
    assert (norms[1] > norms[2]).all()


def test_pfedgraph_draws_towards_the_received(make_trainer: Maker) -> None:
    """With the other sign it would drive the client away: then the cosine falls below plain training's."""

    def cosine(lam: float) -> Tensor:
        trainer = make_trainer(objective=PFedGraph(lam=lam, start="own"), max_steps=4)
        start = starts(trainer)
        for client, row in zip(trainer_clients(trainer), -start.flip(0), strict=True):
            trainer.states[client] = {"own": row}
        tau, _ = together(trainer, [WHO])
        received = start[list(WHO)]
        return torch.nn.functional.cosine_similarity(received + tau, received, dim=1)

    assert (cosine(30.0) > cosine(1e-9) + 0.01).all()


def test_own_start(make_trainer: Maker) -> None:
    """The second round begins at the first one's end, and τ is still counted from what was received."""
    trainer = make_trainer(objective=FedProx(mu=1e-9, start="own"), max_steps=4)
    tau, _ = together(trainer, [WHO])
    first = starts(trainer)[list(WHO)] + tau
    kept = torch.stack([trainer.states[f"c{i}"]["own"] for i in WHO])
    torch.testing.assert_close(kept, first)
    start, out = starts(trainer)[1] + 0.5, torch.empty(trainer.layout.size)
    trainer.fit("c1", start, out, 2)
    again = torch.empty_like(out)
    make_trainer(objective=Plain(), max_steps=4).fit("c1", first[0], again, 2)
    torch.testing.assert_close(out, again)


def test_fedrep_trains_the_head_and_then_the_rest(make_trainer: Maker) -> None:
    trainer = make_trainer(objective=FedRep(head_epochs=3))
    seen: list[tuple[Phase, int, Tensor]] = []
    fit_rows = trainer.backend.fit

    def watch(theta: Tensor, learners: Any, config: ClientConfig, phase: Phase) -> list[float]:
        before = theta.clone()
        losses = fit_rows(theta, learners, config, phase)
        seen.append((phase, len(learners[0].order), theta != before))
        return losses

    trainer.backend.fit = watch  # type: ignore[method-assign]
    start, out = starts(trainer)[1], torch.empty(trainer.layout.size)
    fit = trainer.fit("c1", start, out, 1)
    head = columns(trainer, "head")
    assert [steps for _, steps, _ in seen] == [18, 12]
    assert fit.steps == 30
    assert seen[0][2][0].equal(head)
    assert not seen[1][2][0][head].any()
    assert seen[1][2][0][~head].float().mean() > 0.9


def test_ditto_sends_plain_training_and_keeps_a_personal_model(make_trainer: Maker) -> None:
    plain, _ = one_round(make_trainer, Plain())
    distances = []
    for lam in (0.01, 30.0):
        trainer = make_trainer(objective=Ditto(lam=lam), max_steps=4)
        tau, fits = together(trainer, [WHO])
        assert tau.equal(plain)
        start = starts(trainer)[list(WHO)]
        personal = torch.stack([fit.tuned for fit in fits])
        assert personal.equal(torch.stack([trainer.states[f"c{i}"]["personal"] for i in WHO]))
        distances.append((personal - start).norm(dim=1))
    assert (distances[0] > 1.5 * distances[1]).all()


def test_apfl_uses_the_mixture(make_trainer: Maker) -> None:
    plain, _ = one_round(make_trainer, Plain())
    trainer = make_trainer(objective=APFL(alpha=0.3, adaptive=False), max_steps=4)
    tau, fits = together(trainer, [WHO])
    assert tau.equal(plain)
    theta = starts(trainer)[list(WHO)] + tau
    for row, i in enumerate(WHO):
        state, tuned = trainer.states[f"c{i}"], fits[row].tuned
        assert float(state["alpha"]) == pytest.approx(0.3)
        torch.testing.assert_close(tuned, 0.3 * state["personal"] + 0.7 * theta[row])
        assert (state["personal"] - theta[row]).abs().max() > 1e-3
    adaptive = make_trainer(objective=APFL(alpha=0.3, alpha_lr=1.0), max_steps=2)
    together(adaptive, [WHO, WHO])
    shares = [float(adaptive.states[f"c{i}"]["alpha"]) for i in WHO]
    assert len(set(shares)) == len(WHO)
    assert all(0 <= share <= 1 and share != 0.3 for share in shares)


def test_personal_adapters() -> None:
    """What is written for PEFT; plain training leaves nothing beside the aggregate."""
    own, aggregate = torch.randn(2, 5)
    state = {"personal": own, "alpha": torch.tensor([0.3])}
    for objective in (Ditto(), FedDPA()):
        assert objective.personal(state, aggregate) is own
    mixed = APFL().personal(state, aggregate)
    torch.testing.assert_close(mixed, 0.3 * own + 0.7 * aggregate)
    for objective in (Plain(), FedALA(), APFL(), Ditto()):
        assert objective.personal({}, aggregate) is None


def test_fedala_mixes_from_the_second_round_on(make_trainer: Maker) -> None:
    plain, _ = one_round(make_trainer, Plain())
    trainer = make_trainer(objective=FedALA(eta=50.0, blocks=2), max_steps=4)
    tau, _ = together(trainer, [WHO])
    assert tau.equal(plain)
    assert all((trainer.states[f"c{i}"]["weights"] == 1).all() for i in WHO)
    trainer = make_trainer(objective=FedALA(eta=50.0, blocks=2), max_steps=4)
    together(trainer, [WHO, WHO])
    weights = torch.stack([trainer.states[f"c{i}"]["weights"] for i in WHO])
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert trainer.layout.blocks[-1] == "head"
    below = torch.tensor([e.block == trainer.layout.blocks[0] for e in trainer.layout.entries])
    sizes = torch.tensor([entry.size for entry in trainer.layout.entries])
    below = below.repeat_interleave(sizes)
    assert (weights[:, below] == 1).all()
    assert ((weights[:, ~below] < 0.999).float().mean(1) > 0.05).all()


def test_fedala_takes_what_lowers_the_loss(make_trainer: Maker) -> None:
    """What is mixed from the client's own model and a harmful aggregate is better than either."""
    trainer = make_trainer(objective=FedALA(eta=0.5, epochs=10, portion=1.0))
    together(trainer, [(0,)])
    own = trainer.states["c0"]["own"]
    received = own.clone()
    head = columns(trainer, "head")
    received[head] = -3 * own[head]
    session = LocalSession(trainer.backend, [Assignment("c0", received, trainer.states["c0"])], 2)
    outcome = trainer.config.client.objective(session)
    mixed = Blend(own[None], received[None]).point(outcome.state["weights"])[0]
    assert (trainer.states["c0"]["weights"] == 1).all()  # nothing is remembered before the session is closed
    assert trainer.loss("c0", mixed) < min(trainer.loss("c0", own), trainer.loss("c0", received))


@pytest.mark.parametrize(
    ("objective", "named"),
    [
        (FedProx(mu=0.0), "client.objective.mu: must be positive, got 0.0; without the pull it is plain"),
        (Plain(train=()), "client.objective.train: name at least one of lora_A, lora_B, head"),
        (Plain(train=("head", "head")), "each once"),
        (PFedGraph(lam=-1.0), "client.objective.lam: must be positive, got -1.0"),
        (FedRep(head_epochs=0), "client.objective.head_epochs: at least 1, got 0"),
        (Ditto(lam=0.0), "without it v is local only"),
        (Ditto(epochs=0), "client.objective.epochs: at least 1, got 0"),
        (APFL(alpha=1.0), "client.objective.alpha: must lie between 0 and 1, got 1.0"),
        (FedALA(portion=0.0), "client.objective.portion"),
        (FedALA(blocks=-1), "client.objective.blocks"),
        (FedDPA(share=0.0), "client.objective.share: must lie above 0 and at most at 1, got 0.0"),
        (FedDPA(max_share=2.0), "client.objective.max_share: must lie above 0 and at most at 1, got 2.0"),
        (FedDPA(examples=0), "client.objective.examples: at least 1, got 0"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Objective) else "",
)
def test_settings_that_would_silently_be_another_method(objective: Objective, named: str) -> None:
    (problem,) = problems(Config(client=ClientConfig(objective=objective)))
    assert named in problem


def test_rates_and_budgets_of_single_clients(make_trainer: Maker) -> None:
    own = {"c1": PerClient(rate=0.1), "c4": PerClient(max_steps=2), "c6": PerClient(max_steps=99)}
    trainer = make_trainer(per_client=own)
    (expected, reports), (found, fits) = alone(trainer, [WHO]), together(trainer, [WHO])
    assert relative(found, expected) < TRAINED
    usual, before = together(make_trainer(), [WHO])
    assert [fit.steps for fit in fits] == [fit.steps for fit in reports]
    assert [fit.steps for fit in before] == [12, 20, 2, 8]
    assert [fit.steps for fit in fits] == [12, 2, 2, 8]
    assert found[0].norm() < 0.3 * usual[0].norm()
    assert found[2].equal(usual[2]) or relative(found[2:3], usual[2:3]) < TRAINED


def test_single_clients_that_the_data_lacks_are_named(make_trainer: Maker) -> None:
    with pytest.raises(UserError, match=r"no client nobody; its clients are c0, c1"):
        make_trainer(per_client={"nobody": PerClient(), "c1": PerClient()})
    settings = ClientConfig(per_client={"c1": PerClient(rate=0.0, max_steps=0)})
    assert [line.split(":")[0] for line in problems(Config(client=settings))] == [
        "client.per_client.c1.rate",
        "client.per_client.c1.max_steps",
    ]


def test_absent_classes_are_masked(make_trainer: Maker, people: Any) -> None:
    """c2 knows class 0 only: it is always right about its own data, learns nothing, and others are free."""
    trainer = make_trainer(mask_absent_classes=True, max_steps=4)
    assert trainer.classes["c2"] == (0,)
    assert trainer.classes["c1"] == (0, 1, 2)
    who = (2, 1)
    (expected, _), (found, fits) = alone(trainer, [who]), together(trainer, [who])
    assert (found - expected).norm(dim=1).max() < TRAINED * expected.norm(dim=1).max()
    assert fits[0].loss == pytest.approx(0.0)
    vectors = 3 * starts(trainer)[list(who)]
    scores = CohortTrainer(trainer).score(["c2", "c1"], vectors, "test")
    assert scores[0]["accuracy"] == 1.0
    assert scores == [trainer.score(c, v, "test") for c, v in zip(("c2", "c1"), vectors, strict=True)]
    free = make_trainer()
    assert free.classes["c2"] is None
    assert free.score("c2", vectors[0], "test")["accuracy"] < 1.0
