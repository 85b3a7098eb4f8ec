"""Two adapters in every layer (FedDPA): what the formulas say, alone and stacked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedpl.config import LoraSettings
from fedpl.errors import UserError
from fedpl.objectives import FedDPA, Plain
from fedpl.objectives.models import Duo, stack_models
from fedpl.records.layout import AdapterLayout
from fedpl.training.batches import evaluation_order
from fedpl.training.duo import beside, centre, compared_examples, shares
from fedpl.training.session import Assignment
from tests import bounds
from tests.training.facade import ClientTrainer, CohortTrainer, one
from tests.training.stacked.test_cohorts import relative, starts, trainer_clients

Maker = Callable[..., ClientTrainer]


def duo(trainer: ClientTrainer, max_share: float = 0.5, examples: int = 5) -> Duo:
    """Two unlike adapters for each client."""
    local = starts(trainer)
    return Duo(local, local.flip(0) * 2, max_share, examples)


FORWARD = bounds.trained(steps=1)


def logits(trainer: ClientTrainer, client: str, model: Any) -> Tensor:
    return torch.cat([found.outputs for found in trainer.backend.answers([client], one(model), "test")])


def doubled(trainer: ClientTrainer, local: Tensor, common: Tensor, share: float) -> tuple[Tensor, int]:
    """One adapter of twice the rank whose product is share · BA + (1 − share) · B'A'; and that rank."""
    parts, rank = [], 0
    for entry in trainer.layout.entries:
        own, other = (vector[entry.start : entry.stop].view(entry.shape) for vector in (local, common))
        match entry.kind:
            case "lora_A":
                rank = 2 * len(own)
                part = torch.cat([own, other])
            case "lora_B":
                part = torch.cat([share * own, (1 - share) * other], dim=1)
            case _:
                part = share * own + (1 - share) * other
        parts.append(part.reshape(-1))
    return torch.cat(parts), rank


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_layers_mix_answers_not_factors(make_trainer: Maker, share: float) -> None:
    """PEFT itself, with one adapter of twice the rank, answers the same."""
    trainer = make_trainer(lora=LoraSettings(r=4, alpha=8))
    local, common = duo(trainer).rows(1)[:2]
    wide, rank = doubled(trainer, local, common, share)
    expected = logits(make_trainer(lora=LoraSettings(r=rank, alpha=16)), "c1", wide)
    with beside(trainer.model, trainer.layout, common) as own:
        own.value = share
        assert relative(logits(trainer, "c1", local), expected) < FORWARD
    factors = torch.lerp(common, local, share)
    assert share in (0, 1) or relative(logits(trainer, "c1", factors), expected) > 0.05


def test_models_of_two_kinds_are_not_stacked() -> None:
    pair = Duo(torch.zeros(3), torch.ones(3), 0.5, 5)
    with pytest.raises(TypeError, match="expected models of one kind"):
        stack_models([torch.zeros(3), pair])


def test_hooks_are_gone_afterwards(make_trainer: Maker) -> None:
    trainer = make_trainer()
    local, common = duo(trainer).rows(0)[:2]
    before = logits(trainer, "c0", local)
    with pytest.raises(KeyError), beside(trainer.model, trainer.layout, common):
        raise KeyError
    assert logits(trainer, "c0", local).equal(before)
    cohorts = CohortTrainer(trainer)
    stack = cohorts.engine.stack
    with pytest.raises(KeyError), stack.beside(common[None], 0.5):
        raise KeyError
    assert not any(home.beside for home, _ in stack._homes.values())
    assert stack.rows.share == 1.0


def test_gate_is_the_mean_cosine() -> None:
    torch.manual_seed(0)
    texts, known = torch.randn(6, 9), torch.randn(4, 9)
    cosines = torch.stack([F.cosine_similarity(text, known, dim=1).mean() for text in texts])
    found = shares(texts, centre(known).expand(6, -1), 0.5)
    torch.testing.assert_close(found, (0.5 * cosines).clamp(min=0))
    assert (cosines < 0).any()
    torch.testing.assert_close(shares(known[:1], centre(known[:1])[None], 0.5), torch.tensor([0.5]))


def test_compared_examples_depend_on_seed_and_client_only() -> None:
    assert compared_examples(0, "a", 30, 5) == compared_examples(0, "a", 30, 5)
    assert len({tuple(compared_examples(seed, who, 30, 5)) for seed in (0, 1) for who in "ab"}) == 4
    assert sorted(compared_examples(0, "a", 3, 5)) == [0, 1, 2]


@pytest.mark.parametrize(
    "settings",
    [{}, {"tokens_per_pass": 40}, {"lora": LoraSettings(r=4, layers_to_transform=(1,))}],
    ids=["plain", "many-passes", "prefix"],
)
def test_stacked_texts_get_their_own_share(make_trainer: Maker, settings: dict[str, Any]) -> None:
    """Text by text the stacked answers are PEFT's, though each text has another share."""
    trainer = make_trainer(**settings)
    cohorts, ids, models = CohortTrainer(trainer), trainer_clients(trainer), duo(trainer, 1.0)
    expected: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for place, client in enumerate(ids):
        examples = trainer.tokens[client, "test"]
        order = evaluation_order(examples, trainer.config.evaluation.batch_size)
        for chosen, found in zip(
            order, trainer.backend.answers([client], one(models.rows(place)), "test"), strict=True
        ):
            for example, answer in zip(chosen, found.outputs, strict=True):
                expected[place, tuple(examples.ids[example].tolist())] = answer
    seen, parts, run = 0, [], cohorts.backend._run

    def watch(given: Any) -> Any:
        parts[:] = given
        yield from run(given)

    cohorts.backend._run = watch  # type: ignore[method-assign]
    for answered in cohorts.backend.answers(ids, models, "test"):
        (part,) = parts
        for row, answer in zip(part.rows, answered.outputs, strict=True):
            key = row.client, tuple(row.examples.ids[row.example].tolist())
            assert relative(answer[None], expected[key][None]) < FORWARD
            seen += 1
    assert seen == 11 * len(ids)
    alone = [trainer.score(client, models.rows(i), "test") for i, client in enumerate(ids)]
    assert cohorts.score(ids, models, "test") == alone


@pytest.mark.filterwarnings("ignore")
def test_compiled_gate(make_trainer: Maker, captured: Callable[..., Any]) -> None:
    plain = make_trainer(objective=FedDPA(), max_steps=3)
    expected = CohortTrainer(plain).score(trainer_clients(plain), duo(plain, 1.0), "test")
    with captured() as compiled:
        trainer = make_trainer(objective=FedDPA(), max_steps=3, compile=True)
        cohorts = CohortTrainer(trainer)
        found = cohorts.score(trainer_clients(trainer), duo(trainer, 1.0), "test")
        again = cohorts.score(trainer_clients(trainer), starts(trainer), "test")
    assert compiled
    assert found == expected
    assert again == CohortTrainer(plain).score(trainer_clients(plain), starts(plain), "test")


def test_local_adapter_is_trained_from_the_second_round_on(make_trainer: Maker) -> None:
    trainer = make_trainer(objective=FedDPA(), max_steps=4)
    plain = make_trainer(objective=Plain(), max_steps=4)
    start, kept = starts(trainer), []
    for round in (1, 2):
        work = [Assignment(f"c{i}", start[i] * round) for i in (1, 4)]
        ((_, theta, fits),) = CohortTrainer(trainer).fit(work, round)
        ((_, expected, _),) = CohortTrainer(plain).fit(work, round)
        assert theta.equal(expected)
        models = stack_models([fit.tuned for fit in fits if fit.tuned is not None])
        assert isinstance(models, Duo)
        assert models.common.equal(torch.stack([each.received for each in work]))
        assert models.local.equal(torch.stack([trainer.states[f"c{i}"]["personal"] for i in (1, 4)]))
        kept.append(models.local)
        assert [fit.steps for fit in fits] == [4 * round] * 2
    assert kept[0].equal(start[[1, 4]])
    assert ((kept[1] - kept[0]).norm(dim=1) > 1e-3).all()


def test_the_local_adapter_learns_what_the_common_one_lacks(make_trainer: Maker) -> None:
    """Trained beside a common adapter, the pair is better on the client's data than either alone."""
    trainer = make_trainer(objective=FedDPA(max_share=1.0, share=0.5), epochs=30, gradient_clip=0.0)
    common = starts(trainer)[4]
    for round in (1, 2):
        fit = trainer.fit("c4", common, torch.empty_like(common), round)
    assert isinstance(fit.tuned, Duo)
    with beside(trainer.model, trainer.layout, common) as own:
        own.value = 0.5
        together = trainer.loss("c4", fit.tuned.local)
    assert together < min(trainer.loss("c4", common), trainer.loss("c4", fit.tuned.local))


def test_final_variant_gates_between_received_and_tuned(make_trainer: Maker) -> None:
    trainer = make_trainer(objective=FedDPA(variant="F", max_share=0.7, examples=2), max_steps=3)
    start = starts(trainer)[1]
    theta = torch.empty_like(start)
    fit = trainer.fit("c1", start, theta, 1)
    assert isinstance(fit.tuned, Duo)
    assert fit.tuned.local.equal(theta)
    assert fit.tuned.common.equal(start)
    assert fit.tuned[2:] == (0.7, 2)
    assert "c1" not in trainer.states


def test_adapters_with_more_than_lora_are_refused(make_trainer: Maker) -> None:
    trainer = make_trainer()
    extra = {"encoder.norm.weight": (3,)} | {e.name: e.shape for e in trainer.layout.entries}
    layout = AdapterLayout.of(extra)
    with (
        pytest.raises(UserError, match=r"two adapters at a time need LoRA .* encoder\.norm\.weight"),
        beside(trainer.model, layout, torch.zeros(layout.size)),
    ):
        pass
