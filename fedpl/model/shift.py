"""The frozen weights of the adapted layers with a common residual on top (FLoRA, FedEx)."""

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from fedpl.model.quantised import is_quantised
from fedpl.records.layout import AdapterLayout

_A = ".lora_A.weight"


class BaseWeights:
    """W₀ of every adapted layer, and how to put W₀ + residual in its place and take it away again.

    The weights are changed where they lie, so every model that shares them sees the change.

    Args:
        model: The PEFT model.
        layout: Its adapter's layout; the residual's matrices follow its A factors.
    """

    def __init__(self, model: PeftModel, layout: AdapterLayout) -> None:
        base = model.get_base_model()
        self._layers: list[nn.Module] = [
            base.get_submodule(entry.name.removesuffix(_A))
            for entry in layout.entries
            if entry.name.endswith(_A)
        ]
        self._kept: list[Tensor] = []  # copies of W₀, taken when they are first needed

    @property
    def size(self) -> int:
        """Length of a residual."""
        return sum(self._weight(layer).numel() for layer in self._layers)

    @torch.no_grad()
    def shift(self, residual: Float[Tensor, "weights"] | None) -> None:
        """Set the weights to W₀ + residual, or bit for bit to W₀.

        Args:
            residual: One [out, in] matrix per adapted layer, flattened; None: nothing on top.

        Raises:
            ValueError: If the weights are packed, or the residual has another length.
        """
        if residual is not None and any(is_quantised(layer.get_base_layer()) for layer in self._layers):  # type: ignore[operator]
            raise ValueError("expected weights that can be changed; these are packed (model.quantized)")
        if residual is not None and residual.shape != (self.size,):
            raise ValueError(f"expected a residual of {self.size} weights, got shape {tuple(residual.shape)}")
        if residual is None and not self._kept:
            return
        if not self._kept:
            self._kept = [self._weight(layer).detach().clone() for layer in self._layers]
        start = 0
        for layer, kept in zip(self._layers, self._kept, strict=True):
            weight = self._weight(layer)
            value = kept
            if residual is not None:
                part = residual[start : start + kept.numel()].to(kept.device, torch.float32)
                value = kept.float() + part.view(kept.shape)
            weight.copy_(value)
            start += kept.numel()

    @staticmethod
    def _weight(layer: nn.Module) -> Tensor:
        """The frozen weight as [out, in]; GPT-2's Conv1D keeps its transpose."""
        weight = layer.get_base_layer().weight  # type: ignore[operator]
        return weight.T if layer.fan_in_fan_out else weight
