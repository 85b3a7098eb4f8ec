"""A PEFT model's trainable tensors as one flat float32 vector, and back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedpl.records.layout import AdapterLayout

ADAPTER = "default"


def trainable(model: PeftModel) -> dict[str, nn.Parameter]:
    """Trainable parameters by name, without PEFT's prefixes and the adapter's own name."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = name.removeprefix("base_model.model.").replace(f".{ADAPTER}.", ".")
            found[plain.replace("modules_to_save.", "")] = parameter
    return found


def is_linear(module: nn.Module) -> TypeGuard[LoraLayer]:
    """Whether a layer of PEFT gives base(x) + scale · B A x, whatever its frozen weights are packed in."""
    return isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), nn.Linear | Conv1D)


@contextmanager
def learning(parameters: Mapping[str, nn.Parameter], names: frozenset[str] | None) -> Iterator[None]:
    """Within it only the parameters of these names require gradients; None: all.

    Args:
        parameters: From `trainable`.
        names: Which of them learn.
    """
    frozen = [p for name, p in parameters.items() if names is not None and name not in names]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_()


def layout_of(model: PeftModel) -> AdapterLayout:
    """The layout of a model's trainable tensors."""
    config: Any = model.peft_config[ADAPTER]
    scale = config.lora_alpha / config.r
    return AdapterLayout.of({name: tuple(p.shape) for name, p in trainable(model).items()}, scale)


@torch.no_grad()
def flatten(model: PeftModel, layout: AdapterLayout, out: Float[Tensor, "params"]) -> None:
    """Write the model's adapter into a flat vector."""
    parameters = trainable(model)
    for entry in layout.entries:
        out[entry.start : entry.stop].copy_(parameters[entry.name].reshape(-1))


@torch.no_grad()
def unflatten(vector: Float[Tensor, "params"], model: PeftModel, layout: AdapterLayout) -> None:
    """Load a flat vector into the model's adapter.

    Raises:
        ValueError: If the vector has another length than the layout.
    """
    if vector.shape != (layout.size,):
        raise ValueError(f"expected a vector of {layout.size} parameters, got shape {tuple(vector.shape)}")
    parameters = trainable(model)
    for entry in layout.entries:
        parameters[entry.name].copy_(vector[entry.start : entry.stop].view(entry.shape))
