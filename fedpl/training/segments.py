"""Sums over the rows of each client, added in the order of the rows on every device."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def add_by_client(
    sums: Float[Tensor, "clients ..."], client: Int[Tensor, "rows"], rows: Float[Tensor, "rows ..."]
) -> Float[Tensor, "clients ..."]:
    """Add each client's rows to its sum, in place.

    A GPU's `index_add_` adds in the order in which its threads happen to come, so that rounding differs from
    run to run. Rows of one client follow each other: they are segments, which it sums in order.

    Args:
        sums: One per client of a stack.
        client: Each row's client, ascending.
        rows: What is added.
    """
    if _adds_in_order(sums.device):
        return sums.index_add_(0, client, rows)
    bounds = torch.searchsorted(client, torch.arange(len(sums) + 1, device=client.device))
    return sums.add_(
        torch.segment_reduce(rows.contiguous(), "sum", offsets=bounds, axis=0, unsafe=True, initial=0)
    )


def select(stack: Float[Tensor, "clients ..."], client: Int[Tensor, "rows"]) -> Float[Tensor, "rows ..."]:
    """Each row's own part of a stack; its gradient is summed by `add_by_client`."""
    return _Select.apply(stack, client)


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stack: Tensor, client: Tensor) -> Tensor:
        ctx.save_for_backward(client)
        ctx.clients = stack.shape[0]
        return stack.index_select(0, client)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (client,) = ctx.saved_tensors
        return add_by_client(gradient.new_zeros(ctx.clients, *gradient.shape[1:]), client, gradient), None


def _adds_in_order(device: torch.device) -> bool:
    """Whether `index_add_` does; there it is the fastest way."""
    return device.type == "cpu"
