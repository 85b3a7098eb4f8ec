"""An adapter that also holds what was added to the frozen weights (FLoRA, FedEx), in PEFT format."""

import json
from pathlib import Path

import torch
from jaxtyping import Float
from peft import PeftModel
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from fedpl.files import write_atomically, write_json
from fedpl.model.adapter import save_adapter
from fedpl.records.layout import AdapterLayout

_NEGLIGIBLE = 1e-6  # of the largest singular value of a residual


def save_merged(
    vector: Float[Tensor, "params"],
    residual: Float[Tensor, "weights"],
    model: PeftModel,
    layout: AdapterLayout,
    folder: Path,
) -> None:
    """Write B A and the residual R of every adapted layer as one adapter of higher rank, for the frozen W₀.

    s [B, U] [A; V] = s BA + R with R / s = U V by singular values; layers of a lower rank are padded with
    zeros, and alpha grows with the rank so that the scale s stays.

    Args:
        vector: The adapter.
        residual: What is added to the frozen weights, as in `BaseWeights.shift`.
        model: The PEFT model.
        layout: The adapter's layout.
        folder: Where to write.
    """
    save_adapter(vector, model, layout, folder)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    start = 0
    for a, b in layout.pairs:
        out, into = b.shape[0], a.shape[1]
        part = residual[start : start + out * into].view(out, into).cpu().double() / layout.scale
        start += out * into
        u, values, v = torch.linalg.svd(part, full_matrices=False)
        rank = int((values > _NEGLIGIBLE * values[0]).sum()) if values[0] > 0 else 0
        root = values[:rank].sqrt()
        stacked_a = torch.cat([tensors[_key(a.name)], (root[:, None] * v[:rank]).float()])
        stacked_b = torch.cat([tensors[_key(b.name)], (u[:, :rank] * root).float()], dim=1)
        factors[a.name] = (stacked_a, stacked_b)
    rank = max(len(stacked_a) for stacked_a, _ in factors.values())
    for a, b in layout.pairs:
        stacked_a, stacked_b = factors[a.name]
        missing = rank - len(stacked_a)
        tensors[_key(a.name)] = F.pad(stacked_a, (0, 0, 0, missing)).contiguous()
        tensors[_key(b.name)] = F.pad(stacked_b, (0, missing)).contiguous()
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"r": rank, "lora_alpha": layout.scale * rank}
    write_atomically(path, save(tensors, metadata={"format": "pt"}))
    write_json(folder / "adapter_config.json", config)


def _key(name: str) -> str:
    """The tensor's name in PEFT's file."""
    return f"base_model.model.{name}"
