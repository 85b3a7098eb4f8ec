"""Which rows go through the model together: the plan that costs least, counted in tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

# What a row's own copies of its client's adapter cost, in tokens (MiniLM, rank 8, on a CPU).
_COPY_TOKENS = 2.0


class Limits(NamedTuple):
    """How rows are cut into passes.

    Attributes:
        tokens: Most tokens of a pass, padding included; a longer single row still gets a pass.
        overhead: What one more pass costs, in tokens that could be computed in that time.
        multiple: Lengths are rounded up to a multiple of this.
    """

    tokens: int
    overhead: int = 64
    multiple: int = 1


class Plan(NamedTuple):
    """Rows in the order in which they go through the model.

    Attributes:
        rows: Their places, pass by pass, ascending by client in each.
        sizes: Rows of each pass.
        widths: Length to which each pass is padded.
        even: Whether each client of a pass has equally many rows, and none between them is left out.
        cost: In tokens.
    """

    rows: Int[np.ndarray, "rows"]
    sizes: Int[np.ndarray, "passes"]
    widths: Int[np.ndarray, "passes"]
    even: Bool[np.ndarray, "passes"]
    cost: float


def plan(client: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"], limits: Limits) -> Plan:
    """Passes by length pad least, passes of whole clients need no copies of adapters: what costs less.

    Args:
        client: Each row's client.
        lengths: Tokens of each row.
        limits: Largest pass and its overhead.
    """
    padded = _rounded(lengths, limits)
    parts = cut(lengths, limits)
    sizes = np.array([len(part) for part in parts])
    by_length = _plan(client, padded, np.concatenate(parts), sizes, limits)
    whole = _by_client(client, lengths, limits, by_length.cost)
    if whole is None:
        return by_length
    by_client = _plan(client, padded, *whole, limits)
    return by_length if by_length.cost <= by_client.cost else by_client


def cut(lengths: Sequence[int] | Int[np.ndarray, "rows"], limits: Limits) -> list[Int[np.ndarray, "_"]]:
    """Partition rows into passes with the least padded tokens, an overhead counted for each pass.

    Args:
        lengths: Length of each row.
        limits: Largest pass and its overhead.

    Returns:
        Places of the rows of each pass; together every row once.
    """
    order = np.argsort(lengths, kind="stable")
    padded = _rounded(np.asarray(lengths)[order], limits)
    # Rows of one length stay together, so only the ends of runs of equal length can be cuts.
    ends = np.flatnonzero(np.diff(padded, append=-1)) + 1
    starts = np.concatenate(([0], ends))
    length = padded[ends - 1]
    per_pass = np.maximum(limits.tokens // length, 1)
    rows = ends[:, None] - starts[:-1]  # up to each end, from each start
    costs = rows * length[:, None] - (-rows // per_pass[:, None]) * limits.overhead
    # Least cost of the rows before each cut, and the cut before it.
    best, before = np.zeros(len(starts), np.int64), [0] * len(starts)
    for j in range(len(ends)):
        options = best[: j + 1] + costs[j, : j + 1]
        i = before[j + 1] = int(options.argmin())
        best[j + 1] = options[i]
    passes: list[np.ndarray] = []
    j = len(ends)
    while j:
        i = before[j]
        members = order[starts[i] : starts[j]]
        number = -(-len(members) // per_pass[j - 1])
        size = -(-len(members) // number)
        passes += [members[k : k + size] for k in range(0, len(members), size)]
        j = i
    return passes


def _by_client(
    client: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"], limits: Limits, most: float
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "passes"]] | None:
    """Passes that hold all rows of each of their clients, as far as the limit allows.

    Returns:
        The rows' places, pass by pass, and the size of each pass; None if it cannot cost less than `most`.
    """
    padded = _rounded(lengths, limits)
    order = np.argsort(client, kind="stable")
    sorted_rows = np.lexsort((lengths, client))
    begins = np.flatnonzero(np.diff(client[order], prepend=-1))
    number = np.diff(begins, append=len(order))
    real, full = np.add.reduceat(padded[order], begins), number * np.maximum.reduceat(padded[order], begins)
    # In one pass a client costs its longest row for all, in several its rows and an overhead for each.
    if np.minimum(full, real + 2 * limits.overhead).sum() >= most:
        return None
    single = (full <= limits.tokens) & (full - real <= limits.overhead)
    sizes: list[int] = []
    longest = 0
    for begin, rows, length, one in zip(
        begins.tolist(), number.tolist(), (full // number).tolist(), single.tolist(), strict=True
    ):
        together = max(longest, length)
        if sizes and (sizes[-1] + rows) * together <= limits.tokens:
            sizes[-1] += rows
            longest = together
            continue
        own = sorted_rows[begin : begin + rows]
        parts = [own] if one else [own[part] for part in cut(lengths[own], limits)]
        order[begin : begin + rows] = np.concatenate(parts)
        sizes += map(len, parts)
        longest = length if len(parts) == 1 else limits.tokens
    return order, np.array(sizes)


def _plan(
    client: Int[np.ndarray, "rows"],
    padded: Int[np.ndarray, "rows"],
    rows: Int[np.ndarray, "rows"],
    sizes: Int[np.ndarray, "passes"],
    limits: Limits,
) -> Plan:
    """What passes of these sizes are, and cost."""
    rows = rows[np.lexsort((client[rows], np.repeat(np.arange(len(sizes)), sizes)))]
    begins = np.cumsum(sizes) - sizes
    widths, own = np.maximum.reduceat(padded[rows], begins), client[rows]
    first = own[begins]
    clients = own[begins + sizes - 1] + 1 - first
    each = np.maximum(sizes // clients, 1)
    place = np.arange(len(rows)) - np.repeat(begins, sizes)
    expected = np.repeat(first, sizes) + place // np.repeat(each, sizes)
    even = (sizes % clients == 0) & np.logical_and.reduceat(own == expected, begins)
    cost = (sizes * widths + limits.overhead + np.where(even, 0.0, _COPY_TOKENS * sizes)).sum()
    return Plan(rows, sizes, widths, even, float(cost))


def _rounded(lengths: Int[np.ndarray, "rows"], limits: Limits) -> Int[np.ndarray, "rows"]:
    return -(-lengths // limits.multiple) * limits.multiple
