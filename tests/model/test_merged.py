"""An adapter with its residual, loaded by PEFT onto the untouched model."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from fedpl.config import LoraSettings, ModelConfig
from fedpl.model.adapter import layout_of, unflatten
from fedpl.model.base import add_adapter, load_base
from fedpl.model.saved import save_adapter
from fedpl.model.shift import BaseWeights


@pytest.mark.parametrize("rank", [0, 3, 32])
def test_peft_s_model_answers_as_the_shifted_one(small_model: Path, tmp_path: Path, rank: int) -> None:
    settings = ModelConfig(path=str(small_model))
    model = add_adapter(load_base(settings, 2), LoraSettings(r=2, alpha=6), str(small_model), 0).eval()
    layout = layout_of(model)
    stream = torch.Generator().manual_seed(1)
    vector = torch.randn(layout.size, generator=stream)
    parts = [
        torch.randn(b.shape[0], rank, generator=stream) @ torch.randn(rank, a.shape[1], generator=stream)
        for a, b in layout.pairs
    ]
    residual = 0.3 * torch.cat([part.reshape(-1) for part in parts])
    save_adapter(vector, model, layout, tmp_path, residual)
    ids = torch.tensor([[1, 4, 2, 8, 9], [3, 3, 5, 7, 2]])
    mask = torch.ones_like(ids)
    unflatten(vector, model, layout)
    BaseWeights(model, layout).shift(residual)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask)
        fresh = load_base(settings, 2)
        fresh.load_state_dict(load_file(tmp_path / "head.safetensors"), strict=False)
        fresh.encoder = PeftModel.from_pretrained(fresh.encoder, str(tmp_path)).eval()
        found = fresh(input_ids=ids, attention_mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert fresh.encoder.peft_config["default"].r == 2 + min(rank, 32)
