"""Answers that are being written: what comes next in each row, and the cache of what came before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache


@dataclass(frozen=True, eq=False)
class Live:
    """Rows that end together at the right; what stands before a row's first token is padding.

    Attributes:
        prompts: Which prompt each row answers.
        tokens: That go through the model next.
        real: Where, in the cache and then in `tokens`, a row's own tokens are; by place, since a padding
            token can also be one of the answer.
        cache: Keys and values of all tokens before these. It changes in place.
    """

    prompts: list[int]
    tokens: Int[Tensor, "rows new"]
    real: Int[Tensor, "rows known"]
    cache: DynamicCache

    @staticmethod
    def none() -> "Live":
        """No rows."""
        nothing = torch.zeros(0, 1, dtype=torch.int64)
        return Live([], nothing, nothing, DynamicCache())

    @staticmethod
    def of(prompts: list[int], tokens: Int[Tensor, "rows new"], real: Int[Tensor, "rows new"]) -> "Live":
        """Prompts of which nothing has gone through the model."""
        return Live(prompts, tokens, real, DynamicCache())

    @property
    def fresh(self) -> Int[Tensor, "rows new"]:
        """Which of `tokens` are a row's own."""
        return self.real[:, -self.tokens.shape[1] :]

    @property
    def positions(self) -> Int[Tensor, "rows new"]:
        """Each token's place in its own row."""
        return (self.real.cumsum(1) - 1).clamp(min=0)[:, -self.tokens.shape[1] :]

    def after(self, tokens: Int[Tensor, "rows"]) -> "Live":
        """When the model has seen `tokens` and these follow."""
        one = tokens[:, None]
        return replace(self, tokens=one, real=torch.cat([self.real, torch.ones_like(one)], 1))

    def keep(self, rows: Sequence[int]) -> "Live":
        """Some of the rows, in this order, without what is padding in all of them."""
        if len(rows) == len(self.prompts) and list(rows) == sorted(rows):
            return self
        if not rows:
            return Live.none()
        index = torch.tensor(rows, device=self.real.device)
        real = self.real[index]
        first = int(real.any(0).int().argmax())
        layer: Any
        for layer in self.cache.layers:
            layer.keys, layer.values = (part[index, :, first:] for part in (layer.keys, layer.values))
        return Live([self.prompts[row] for row in rows], self.tokens[index], real[:, first:], self.cache)

    def joined(self, other: "Live", clients: Int[np.ndarray, "prompts"]) -> "Live":
        """These rows and others, by client: where each has as many, no adapter is copied.

        Args:
            other: Rows whose next token is one, too.
            clients: Each prompt's.
        """
        if not self.prompts or not other.prompts:
            return self if self.prompts else other
        prompts = [*self.prompts, *other.prompts]
        width = max(self.real.shape[1], other.real.shape[1])
        own: Any
        new: Any
        for own, new in zip(self.cache.layers, other.cache.layers, strict=True):
            own.keys = torch.cat([_widened(part.keys, width - 1) for part in (own, new)])
            own.values = torch.cat([_widened(part.values, width - 1) for part in (own, new)])
        real = torch.cat([F.pad(part.real, (width - part.real.shape[1], 0)) for part in (self, other)])
        both = Live(prompts, torch.cat([self.tokens, other.tokens]), real, self.cache)
        return both.keep(np.argsort(clients[prompts], kind="stable").tolist())


def _widened(part: Tensor, width: int) -> Tensor:
    """Keys or values [rows, heads, places, features] with padding before them."""
    return F.pad(part, (0, 0, width - part.shape[2], 0))
