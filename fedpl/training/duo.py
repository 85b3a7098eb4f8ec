"""Two adapters at work in every adapted layer, and the gate between them (FedDPA, arXiv 2403.19211)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn import functional as F

from fedpl.errors import UserError
from fedpl.model.adapter import ADAPTER, is_linear
from fedpl.randomness import derive_seed
from fedpl.records.layout import AdapterLayout


def compared_examples(seed: int, client: str, available: int, wanted: int) -> list[int]:
    """The training texts that a client's gate compares with: the same in all rounds."""
    stream = torch.Generator().manual_seed(derive_seed(seed, "gate", 0, client))
    return torch.randperm(available, generator=stream).tolist()[:wanted]


def centre(vectors: Float[Tensor, "examples features"]) -> Float[Tensor, "features"]:
    """Mean direction; its product with a unit vector is the mean cosine."""
    return F.normalize(vectors.float(), dim=1).mean(0)


def shares(
    vectors: Float[Tensor, "rows features"], centres: Float[Tensor, "#rows features"], max_share: float
) -> Float[Tensor, "rows"]:
    """w of each text; 0 where the mean cosine is negative."""
    return ((F.normalize(vectors.float(), dim=1) * centres).sum(1) * max_share).clamp(0, 1)


@contextmanager
def head_inputs(head: nn.Module) -> Iterator[list[Float[Tensor, "rows features"]]]:
    """Within it the list receives what the head is given, pass by pass."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


@dataclass
class Share:
    """The share of the adapter in place, to be set before a pass: one for all rows, or one each."""

    value: Float[Tensor, "rows"] | float


@contextmanager
def beside(
    model: PeftModel, layout: AdapterLayout, other: Float[Tensor, "params"], share: float = 1.0
) -> Iterator[Share]:
    """Within it every adapted layer of a PEFT model gives share · own + (1 − share) · other.

    The layers' whole answers are mixed, by hooks, and the frozen layer is computed for each of the two: slow
    and plain, it is what the stacked layers are checked against. `other` is not trained and sees no dropout.

    Args:
        model: The model; the adapter in place is the own one.
        layout: Its adapter's layout.
        other: The second adapter.
        share: Of the own one, until another is set through the object that is given.

    Raises:
        UserError: If the adapter holds more than LoRA on linear layers and linear heads.
    """
    tensors = {entry.name: other[entry.start : entry.stop].view(entry.shape) for entry in layout.entries}
    given = Share(share)

    def mixing(answer: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            own = torch.as_tensor(given.value, device=output.device).to(output.dtype)
            if own.dim():
                own = own.view(-1, *[1] * (output.dim() - 1))
            return own * output + (1 - own) * answer(inputs[0])

        return hook

    with ExitStack() as stack:
        for name, module in model.get_base_model().named_modules():
            if is_linear(module):
                answer = _lora(
                    module, tensors.pop(f"{name}.lora_A.weight"), tensors.pop(f"{name}.lora_B.weight")
                )
            elif isinstance(module, ModulesToSaveWrapper) and f"{name}.weight" in tensors:
                answer = _linear(tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias", None))
            else:
                continue
            stack.callback(module.register_forward_hook(mixing(answer)).remove)
        if tensors:
            raise UserError(
                f"client.objective: two adapters at a time need LoRA on linear layers and linear heads; the "
                f"adapter also holds {', '.join(sorted(tensors))}"
            )
        yield given


def _lora(module: LoraLayer, a: Tensor, b: Tensor) -> Callable[[Tensor], Tensor]:
    frozen, scale = module.get_base_layer(), float(module.scaling[ADAPTER])

    def answer(x: Tensor) -> Tensor:
        base = frozen(x)
        return (base + scale * F.linear(F.linear(x.to(a.dtype), a), b)).to(base.dtype)

    return answer


def _linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    return lambda x: F.linear(x.to(weight.dtype), weight, bias)
