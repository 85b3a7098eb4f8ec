"""The stacked model with what makes it cheaper: prefix cache, gradient checkpointing, compilation."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedpl.records.layout import AdapterLayout
from fedpl.training.dropout import StreamDropout
from fedpl.training.settings import ClientConfig
from fedpl.training.stacked.packing import Pass
from fedpl.training.stacked.prefix import Prefix, prefix_blocks
from fedpl.training.stacked.stack import Stack


class Engine:
    """Answers passes whose rows belong to different clients.

    Args:
        model: The PEFT model; it stays as it is and shares its frozen weights.
        layout: The layout of its adapter.
        config: Which of the savings to use.
        tokens: Of all texts that can come, for the prefix cache.

    Raises:
        UserError: If the adapter cannot be stacked.

    Attributes:
        stack: The stacked model.
        streams: The dropout of the pass that is being computed, if it has any.
        adapter_dropout: Whether the adapter itself has dropout.
    """

    def __init__(
        self, model: PeftModel, layout: AdapterLayout, config: ClientConfig, tokens: int = 2**20
    ) -> None:
        self.stack = Stack(model, layout)
        self.streams: StreamDropout | None = None
        twin = self.stack.model
        self.adapter_dropout = any(
            "lora_dropout" in name and getattr(module, "p", 0) > 0 for name, module in twin.named_modules()
        )
        self._mask: Tensor | None = None
        blocks = prefix_blocks(twin, layout) if config.prefix_cache_mb and not config.compile else []
        self.prefix = Prefix(blocks, config.prefix_cache_mb * 2**20, tokens) if blocks else None
        if config.gradient_checkpointing:
            for name in layout.blocks:
                if name != "head":
                    self._checkpoint(twin.get_submodule(name))
        if config.compile:
            twin.compile(dynamic=True)

    def set_classes(self, classes: Sequence[Sequence[int] | None]) -> None:
        """Which classes each client of the stack has; None: all."""
        if all(own is None for own in classes):
            self._mask = None
            return
        self._mask = torch.zeros(len(classes), self._classes(), dtype=torch.bool)
        for row, own in zip(self._mask, classes, strict=True):
            if own is not None:
                row.fill_(True)[list(own)] = False

    def __call__(self, part: Pass, cache: bool) -> Float[Tensor, "rows ..."]:
        """What the model gives for a pass; classes that a row's client does not have get −∞.

        Args:
            part: Rows, on the model's device.
            cache: Whether states of the prefix may be used: nothing in it is random.
        """
        if cache and self.prefix is not None:
            logits = self.prefix.run(part, self.stack)
        else:
            logits = self.stack(part.client, part.inputs, part.even)
        if self._mask is None:
            return logits
        return logits.masked_fill(self._mask.to(logits.device)[part.client], float("-inf"))

    def _classes(self) -> int:
        return max(entry.shape[0] for entry in self.stack.layout.entries if entry.kind == "head")

    def _checkpoint(self, block: nn.Module) -> None:
        """Compute a block again in the backward pass, with the same dropout."""
        forward: Callable[..., Any] = block.forward

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), self.streams.resume() if self.streams else nullcontext()

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

        block.forward = wrapped
