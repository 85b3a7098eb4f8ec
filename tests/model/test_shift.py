"""A residual on the frozen weights: what a model with weights edited by hand answers, and the way back."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedpl.config import ClientConfig, LoraSettings
from fedpl.model.adapter import layout_of, unflatten
from fedpl.model.shift import BaseWeights
from fedpl.training.stacked.engine import Engine
from fedpl.training.stacked.packing import Limits, Row, pack
from tests.training.facade import ClientTrainer, CohortTrainer
from tests.training.stacked.test_cohorts import one_by_one, relative, starts, together, trainer_clients
from tests.training.stacked.test_packing import learner
from tests.training.stacked.test_stacked import CASES, adapters


def residual_of(size: int) -> Tensor:
    return 2.0 * torch.randn(size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["bert", "bert-ranks", "bert-last-block", "gpt2-conv1d"])
def test_logits_are_those_of_edited_weights(name: str) -> None:
    model = CASES[name]()
    layout, theta = layout_of(model), adapters(model, 2)
    engine = Engine(model, layout, ClientConfig())
    engine.stack.bind(theta)
    base = BaseWeights(model, layout)
    residual = residual_of(base.size)
    edited = copy.deepcopy(model)
    start = 0
    for entry in layout.entries:
        if entry.kind == "lora_A":
            layer = edited.get_base_model().get_submodule(entry.name.removesuffix(".lora_A.weight"))
            out, into = layer.out_features, layer.in_features
            part = residual[start : start + out * into].view(out, into)
            start += out * into
            weight = layer.base_layer.weight
            weight.data += part.T if name == "gpt2-conv1d" else part
    assert start == base.size
    source = learner([3, 7, 4], 0, 1).examples
    (part,) = pack([Row(client, source, i) for i, client in enumerate((0, 1, 1))], Limits(1000, 1000))
    before = engine(part, cache=True)
    base.shift(residual)
    logits = engine(part, cache=True)  # states of the prefix were remembered before the shift
    for client in range(2):
        unflatten(theta[client], edited, layout)
        own = part.client == client
        expected = edited(
            input_ids=part.inputs["input_ids"][own], attention_mask=part.inputs["attention_mask"][own]
        )
        torch.testing.assert_close(logits[own], expected)
    assert (logits - before).abs().max() > 1e-3
    base.shift(residual)  # it does not add up
    assert engine(part, cache=True).equal(logits)
    base.shift(None)
    assert engine(part, cache=True).equal(before)


def test_weights_come_back_bit_for_bit() -> None:
    model = CASES["gpt2-conv1d"]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    base = BaseWeights(model, layout_of(model))
    base.shift(None)
    base.shift(residual_of(base.size))
    changed = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    assert changed
    assert all("base_layer.weight" in name for name in changed)
    base.shift(None)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="got shape \\(3,\\)"):
        base.shift(torch.zeros(3))


def test_cohorts_train_on_shifted_weights_as_one_by_one(make_trainer: Callable[..., ClientTrainer]) -> None:
    trainer = make_trainer(lora=LoraSettings(r=4, layers_to_transform=(1,)))
    usual, _ = together(trainer)
    size = BaseWeights(trainer.model, trainer.layout).size
    trainer.shift(residual_of(size))
    (expected, _), (found, _) = one_by_one(trainer), together(trainer)
    assert relative(found, expected) < 1e-4
    assert relative(found, usual) > 1e-2
    trainer.shift(None)
    assert together(trainer)[0].equal(usual)


def test_losses_equal_one_by_one(make_trainer: Callable[..., ClientTrainer]) -> None:
    for settings in ({}, {"mask_absent_classes": True}, {"cohort_size": 3, "model_dropout": True}):
        trainer = make_trainer(**settings)
        ids, models = trainer_clients(trainer), 5 * starts(trainer)[:3]
        found = CohortTrainer(trainer).losses(ids, models)
        expected = torch.tensor([[trainer.loss(client, model) for model in models] for client in ids])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert found.std(1).max() > 0.01
    tokens = trainer.tokens["c1", "train"]
    unflatten(models[0], trainer.model, trainer.layout)
    batch = tokens.collate(range(len(tokens)))
    logits = trainer.model.eval()(**batch.inputs)
    mean = torch.nn.functional.cross_entropy(logits, batch.targets).item()
    assert float(found[1, 0]) == pytest.approx(mean, rel=1e-4)
