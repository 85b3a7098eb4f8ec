"""The frozen foundation model with one adapter, on the device where clients train."""

import peft
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.model.adapter import flatten, layout_of
from fedpl.model.base import BaseModel, add_adapter, halve_frozen
from fedpl.model.hardware import Hardware
from fedpl.model.settings import LoraSettings
from fedpl.model.shift import BaseWeights
from fedpl.records.layout import AdapterLayout


class Foundation:
    """One resident model whose adapter is exchanged for each client's.

    Args:
        base: The model, without an adapter; it is changed.
        lora: The adapter.
        path: The model's name, recorded in adapters that are written.
        seed: Seed of θ₀.
        hardware: Where to train.
        shifts: Whether the frozen weights are going to be changed, for which they stay in float32.

    Raises:
        UserError: If no layer matches the adapter's targets.
    """

    def __init__(
        self,
        base: BaseModel,
        lora: LoraSettings,
        path: str,
        seed: int,
        hardware: Hardware,
        shifts: bool = False,
    ) -> None:
        self.hardware = hardware
        halved = hardware.precision == "bf16-mixed" and not shifts
        if not halved:
            base.float()
        self.model: peft.PeftModel = add_adapter(base, lora, path, seed).to(hardware.device)
        if halved:
            halve_frozen(self.model)
        self.layout: AdapterLayout = layout_of(self.model)
        self._weights = BaseWeights(self.model, self.layout)
        self._initial = torch.empty(self.layout.size)
        flatten(self.model, self.layout, self._initial)

    def initial(self) -> Float[Tensor, "params"]:
        """θ₀, drawn from the seed when the adapter was placed, whatever the model has been given since."""
        return self._initial.clone()

    def shift(self, residual: Float[Tensor, "weights"] | None) -> None:
        """See `fedpl.records.messages.Frozen`; every model that shares the weights sees the change."""
        self._weights.shift(residual)
