"""A model in a narrow type is never held in float32 where it need not be, and trains as if it had been."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fedpl.model.base import load_base
from fedpl.model.foundation import Foundation
from fedpl.model.hardware import Hardware
from fedpl.model.settings import LoraSettings, ModelConfig
from fedpl.model.weights import type_of
from fedpl.tasks import Classification

CPU = torch.device("cpu")


def copy(model: Path, folder: Path, dtype: torch.dtype, all: bool = True) -> ModelConfig:
    """The model with its weights, or only the matrices, in another type; not said in its configuration."""
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model / "model.safetensors")
    changed = {name: t.to(dtype) if all or t.dim() > 1 else t for name, t in tensors.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    return ModelConfig(path=str(folder))


def founded(config: ModelConfig, own: bool, precision: str, shifts: bool = False) -> Foundation:
    base = load_base(config, 2, own)
    return Foundation(base, LoraSettings(r=2), config.path, 5, Hardware(CPU, precision), shifts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("precision", "shifts"), [("32-true", False), ("bf16-mixed", False), ("bf16-mixed", True)]
)
def test_the_same_model_as_by_way_of_float32(
    small_model: Path, tmp_path: Path, dtype: torch.dtype, precision: str, shifts: bool
) -> None:
    config = copy(small_model, tmp_path, dtype)
    expected, found = (founded(config, own, precision, shifts) for own in (False, True))
    assert found.initial().equal(expected.initial()), "θ₀ is drawn in float32"
    names, others = dict(found.model.named_parameters()), dict(expected.model.named_parameters())
    assert names.keys() == others.keys()
    for name, tensor in names.items():
        # Tables of bfloat16 stay as they are, and give the same vectors in float32.
        narrow = "embeddings.weight" in name and tensor.dtype == torch.bfloat16
        assert tensor.dtype == others[name].dtype or narrow
        assert tensor.float().equal(others[name].float())
        assert tensor.requires_grad == others[name].requires_grad


def test_matrices_of_a_narrow_model_are_not_copied(small_model: Path, tmp_path: Path) -> None:
    base = Classification().base(copy(small_model, tmp_path, torch.bfloat16), ("x", "y"))
    loaded = {module.weight.data_ptr() for module in base.encoder.modules() if isinstance(module, nn.Linear)}
    assert {p.dtype for p in base.encoder.parameters()} == {torch.bfloat16}
    model = Foundation(base, LoraSettings(r=2), "", 5, Hardware(CPU, "bf16-mixed")).model
    kept = {p.data_ptr() for p in model.parameters() if p.dtype == torch.bfloat16}
    assert loaded <= kept


def test_what_is_not_narrow_throughout_counts_as_float32(small_model: Path, tmp_path: Path) -> None:
    assert type_of(str(small_model)) == "float32"
    config = copy(small_model, tmp_path, torch.bfloat16, all=False)
    assert type_of(config.path) == "float32"
    assert {p.dtype for p in load_base(config, 2, own_type=True).parameters()} == {torch.float32}
