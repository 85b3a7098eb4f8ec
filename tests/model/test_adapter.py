from pathlib import Path

import peft
import pytest
import torch

from fedpl.config import LoraSettings, ModelConfig
from fedpl.model.adapter import flatten, layout_of, trainable, unflatten
from fedpl.model.base import add_adapter, load_base


@pytest.fixture
def model(small_model: Path) -> peft.PeftModel:
    return add_adapter(
        load_base(ModelConfig(path=str(small_model)), 2), LoraSettings(r=2), str(small_model), 0
    )


def test_the_vector_holds_every_trainable_parameter_once(model: peft.PeftModel) -> None:
    layout = layout_of(model)
    assert layout.size == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert {entry.name for entry in layout.entries} == set(trainable(model))
    assert layout.blocks == ("encoder.encoder.layer.0", "encoder.encoder.layer.1", "head")


def test_there_and_back_is_exact(model: peft.PeftModel) -> None:
    layout = layout_of(model)
    vector = torch.randn(layout.size)
    unflatten(vector, model, layout)
    back = torch.empty(layout.size)
    flatten(model, layout, back)
    assert torch.equal(back, vector)


def test_each_tensor_goes_to_its_own_columns(model: peft.PeftModel) -> None:
    layout = layout_of(model)
    unflatten(torch.arange(layout.size, dtype=torch.float32), model, layout)
    for entry in layout.entries:
        values = trainable(model)[entry.name]
        assert values.flatten()[0] == entry.start
        assert values.flatten()[-1] == entry.stop - 1


def test_a_wrong_length_is_refused(model: peft.PeftModel) -> None:
    layout = layout_of(model)
    with pytest.raises(ValueError, match=f"expected a vector of {layout.size}"):
        unflatten(torch.zeros(layout.size + 1), model, layout)
