"""Dropout from per-client streams: a mask depends on the client, its step and the place, on nothing else.

A generator's next number depends on everything that was drawn before, so masks drawn in one batch for many
clients could not equal those of the clients alone. Here a mask is a hash of (client's stream, step, row of
the client's batch, call within the pass, place within the row): the same for any company, padding, device.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SPREAD = (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9, 0x3C6EF35F)  # odd; one per axis within a row
_SITE = 0x61C88647
# So many numbers stay in a CPU's cache through all steps of the hash.
_CACHED = 1 << 16


def row_keys(stream: int, step: int, rows: int) -> Int[Tensor, "rows"]:
    """Keys of the rows of a client's batch.

    Args:
        stream: Seed of the client's stream in this round.
        step: Number of the step within the round.
        rows: Size of the batch.
    """
    return torch.from_numpy(stream_keys(np.full(rows, stream, np.uint64), step, np.arange(rows)))


def stream_keys(
    streams: UInt[np.ndarray, "rows"], step: int, places: Int[np.ndarray, "rows"]
) -> Int[np.ndarray, "rows"]:
    """Keys of the rows of many clients' batches, as of `row_keys`.

    Args:
        streams: Seed of each row's client's stream.
        step: Number of the step within the round.
        places: Each row's place in its client's batch.
    """
    starts = (streams ^ (step * 0x9E3779B97F4A7C15 & 2**64 - 1)) + 2**63
    keys = places.astype(np.uint64) * 0x2545F4914F6CDD1D + starts
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> shift)) * factor
    return (keys ^ (keys >> 31)).astype(np.uint32).view(np.int32)


def keep_mask(keys: Int[Tensor, "rows"], site: int, shape: Sequence[int], p: float) -> Bool[Tensor, "..."]:
    """Which places of an activation of this shape stay, each with probability 1 − p.

    Args:
        keys: A key per row, from `row_keys`.
        site: Number of the dropout call within the pass.
        shape: Shape of the activation; its first axis is the rows.
        p: Share of places dropped.
    """
    place = torch.full((), site * _SITE & 0x7FFFFFFF, dtype=torch.int32, device=keys.device)
    for axis, length in enumerate(shape[1:]):
        steps = torch.arange(length, dtype=torch.int32, device=keys.device) * _SPREAD[axis % len(_SPREAD)]
        place = place.unsqueeze(-1) + steps
    place = _folded(_folded(_mix(_folded(place))))  # its own hash, and the first fold of the next one
    rows = _folded(keys).view(-1, *(1,) * (len(shape) - 1))
    kept = torch.empty(tuple(shape), dtype=torch.bool, device=keys.device)
    size = max(_CACHED // max(place.numel(), 1), 1) if keys.device.type == "cpu" else len(keys)
    least = round(p * 2**32) - 2**31
    for start in range(0, len(keys), size):
        part = slice(start, start + size)
        # The finaliser of row ^ place. Its first fold is linear and has been done on both sides; its last one
        # changes the lower half alone, which decides only where the upper half is that of `least`. Comparing
        # to 0 and 1 in place and copying them takes a third of the time of comparing to bool.
        mixed = _mix(rows[part] ^ place).bitwise_xor_(least >> 16 & 0xFFFF)
        kept[part] = mixed.ge_(least)
    return kept


def _mix(h: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """MurmurHash3's finaliser without its first and last fold, in place, on 32-bit integers that wrap."""
    h *= 0x85EBCA6B - 2**32
    h ^= _shift(h, 13)
    h *= 0xC2B2AE35 - 2**32
    return h


def _folded(h: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Upper half onto the lower one."""
    return h ^ _shift(h, 16)


def _shift(h: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Shift right as if unsigned; torch's own shift fills with the sign."""
    return (h >> bits).bitwise_and_((1 << h.element_size() * 8 - bits) - 1)


def set_dropout(model: nn.Module, everywhere: bool) -> None:
    """Training mode: dropout everywhere, or before LoRA's A only.

    Hugging Face loads models in evaluation mode and Lightning keeps the mode it finds.
    """
    model.train(everywhere)
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            module.train()


class StreamDropout(TorchFunctionMode):
    """Within it, every dropout of a forward pass is drawn from the rows' keys.

    It replaces ``torch.nn.functional.dropout`` (and so ``nn.Dropout``) and the dropout inside
    ``scaled_dot_product_attention``, in any model. One pass per instance.

    Args:
        keys: A key per row of the batch.
        site: Number of the first dropout call.
    """

    def __init__(self, keys: Int[Tensor, "rows"], site: int = 0) -> None:
        super().__init__()
        self.keys = keys
        self.site = site

    def resume(self) -> "StreamDropout":
        """The same masks from here on, for a part of the pass that is computed again."""
        return StreamDropout(self.keys, self.site)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.dropout:
            return self._dropout(*args, **kwargs)
        if function is F.scaled_dot_product_attention and kwargs.get("dropout_p", 0.0) > 0:
            return self._attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _dropout(
        self, input: Float[Tensor, "..."], p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Float[Tensor, "..."]:
        if not training or p == 0:
            return input
        self.site += 1
        rows = len(self.keys)
        x = input if input.shape[0] == rows else input.reshape(rows, -1, input.shape[-1])
        mask = keep_mask(self.keys, self.site, x.shape, p)
        return (x * mask).mul_(1 / (1 - p)).view_as(input)

    def _attention(
        self,
        query: Float[Tensor, "rows heads queries features"],
        key: Float[Tensor, "rows heads_kv keys features"],
        value: Float[Tensor, "rows heads_kv keys features"],
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Float[Tensor, "rows heads queries features"]:
        if enable_gqa:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        shares = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        return self._dropout(shares, dropout_p) @ value
