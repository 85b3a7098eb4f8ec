"""Every row goes through the model exactly once, in passes within the limit."""

import sys
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedpl.tasks.examples import Examples, Sequences
from fedpl.training.batches import batch_order
from fedpl.training.partitions import Learner
from fedpl.training.stacked.cutting import plan
from fedpl.training.stacked.packing import Limits, Row, cut, pack, steps
from fedpl.training.stacked.rows import Rows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


def cost(passes: list[list[int]], lengths: list[int], limits: Limits) -> int:
    def padded(length: int) -> int:
        return -(-length // limits.multiple) * limits.multiple

    return sum(len(part) * padded(max(lengths[i] for i in part)) + limits.overhead for part in passes)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 500), st.integers(0, 200), st.sampled_from([1, 8]))
def test_cut(lengths: list[int], tokens: int, overhead: int, multiple: int) -> None:
    limits = Limits(tokens, overhead, multiple)
    passes = cut(lengths, limits)
    assert sorted(i for part in passes for i in part) == list(range(len(lengths)))
    for part in passes:
        longest = -(-max(lengths[i] for i in part) // multiple) * multiple
        assert len(part) * longest <= tokens or len(part) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 200))
def test_cut_is_the_cheapest(lengths: list[int], overhead: int) -> None:
    limits = Limits(10_000, overhead)
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    options = []
    for pattern in range(2 ** (len(order) - 1)):
        parts = [[order[0]]]
        for place, i in enumerate(order[1:]):
            if pattern >> place & 1:
                parts.append([i])
            else:
                parts[-1].append(i)
        options.append(cost(parts, lengths, limits))
    assert cost(cut(lengths, limits), lengths, limits) == min(options)


def learner(sizes: list[int], number: int, max_steps: int) -> Learner:
    ids = [torch.arange(1, size + 1) + 100 * number for size in sizes]
    tokens = Examples(Sequences.of(ids), torch.arange(len(sizes)), pad=0)
    return Learner(tokens, batch_order(len(sizes), 2, 2, number, max_steps), stream=number)


@pytest.mark.parametrize("multiple", [1, 8])
def test_steps_hold_each_active_clients_own_batch(multiple: int) -> None:
    learners = [learner([3, 1, 4, 1, 5], 1, 6), learner([9, 2, 6, 5], 2, 4), learner([7], 3, 1)]
    found = list(steps(learners, Limits(12, multiple=multiple)))
    assert [step.active for step in found] == [3, 2, 2, 2, 1, 1]
    for number, step in enumerate(found):
        seen: dict[int, list[int]] = {}
        for part in step.passes:
            assert part.inputs["input_ids"].shape[1] % multiple == 0
            for i, row in enumerate(part.rows):
                seen.setdefault(row.client, []).append(row.example)
                batch = learners[row.client].order[number]
                assert float(part.weight[i]) == 1 / len(batch)
                assert int(part.targets[i]) == row.example
                real = part.inputs["input_ids"][i][part.inputs["attention_mask"][i].bool()]
                assert real.equal(learners[row.client].examples.ids[row.example])
                assert not part.inputs["input_ids"][i][len(real) :].any()
        batches = {client: sorted(learners[client].order[number]) for client in range(step.active)}
        assert {client: sorted(examples) for client, examples in seen.items()} == batches


def test_rows_of_a_step_have_different_dropout_keys() -> None:
    learners = [learner([3, 1, 4, 1, 5], 1, 6), learner([9, 2, 6, 5], 2, 4)]
    keys = [int(key) for step in steps(learners, Limits(12)) for part in step.passes for key in part.key]
    assert len(set(keys)) == len(keys) == 10 + 8


def test_batch_order() -> None:
    order = batch_order(5, 2, 2, seed=7)
    assert [len(batch) for batch in order] == [2, 2, 1, 2, 2, 1]
    first, second = ([i for batch in part for i in batch] for part in (order[:3], order[3:]))
    assert sorted(first) == sorted(second) == list(range(5))
    assert first != second
    assert order[:4] == batch_order(5, 2, 2, seed=7, max_steps=4)
    assert order != batch_order(5, 2, 2, seed=8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), min_size=1, max_size=40), st.integers(1, 300)
)
def test_pack_holds_every_row_once_within_the_limit(owned: list[tuple[int, int]], tokens: int) -> None:
    source = learner([length for _, length in owned], 1, 1).examples
    rows = [Row(client, source, i) for i, (client, _) in enumerate(owned)]
    passes = pack(rows, Limits(tokens))
    assert sorted(row.example for part in passes for row in part.rows) == list(range(len(rows)))
    for part in passes:
        assert part.inputs["input_ids"].numel() <= tokens or len(part.rows) == 1
        assert part.client.tolist() == sorted(part.client.tolist())
        if part.even:
            counts = {list(part.client).count(client) for client in range(*part.even)}
            assert len(counts) == 1


def test_alike_clients_go_through_without_copies() -> None:
    source = learner([9, 10] * 6, 1, 1).examples
    passes = pack([Row(i // 2, source, i) for i in range(12)], Limits(1000))
    assert [part.even for part in passes] == [(0, 6)]
    uneven = learner([2, 40] * 6, 1, 1).examples
    passes = pack([Row(i // 2, uneven, i) for i in range(12)], Limits(1000))
    assert [part.inputs["input_ids"].shape for part in passes] == [(6, 40), (6, 2)]


def even(clients: list[int]) -> bool:
    number = max(clients) + 1 - min(clients)
    each = -(-len(clients) // number)
    return clients == [client for client in range(min(clients), max(clients) + 1) for _ in range(each)]


def plain_plan(client: list[int], lengths: list[int], limits: Limits) -> list[list[int]]:
    """The plan, row by row and client by client."""

    def padded(part: list[int]) -> int:
        return -(-max(lengths[i] for i in part) // limits.multiple) * limits.multiple

    def cost(parts: list[list[int]]) -> float:
        copies = [0 if even([client[i] for i in part]) else 2 * len(part) for part in parts]
        return sum(len(p) * padded(p) + limits.overhead + c for p, c in zip(parts, copies, strict=True))

    def inner(rows: list[int]) -> list[list[int]]:
        return [[rows[i] for i in part] for part in cut([lengths[i] for i in rows], limits)]

    by_client: list[list[int]] = []
    longest = 0
    order = sorted(range(len(client)), key=client.__getitem__)
    for _, group in groupby(order, key=client.__getitem__):
        own = list(group)
        together = max(longest, padded(own))
        if by_client and (len(by_client[-1]) + len(own)) * together <= limits.tokens:
            by_client[-1] += own
            longest = together
        else:
            parts = inner(own)
            by_client += parts
            longest = padded(own) if len(parts) == 1 else limits.tokens
    by_length, by_client = (
        [sorted(part, key=client.__getitem__) for part in parts]
        for parts in (inner(list(range(len(client)))), by_client)
    )
    return min((by_length, by_client), key=cost)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40)), min_size=1, max_size=50),
    st.integers(1, 600),
    st.integers(0, 6) | st.integers(0, 100),
    st.sampled_from([1, 8]),
)
@example([(0, 1)] * 5 + [(0, 2)] * 5 + [(1, 1)] * 7 + [(1, 2)] * 3, 600, 3, 1)
def test_plan_is_what_row_by_row_gives(
    owned: list[tuple[int, int]], tokens: int, overhead: int, multiple: int
) -> None:
    client, lengths = map(list, zip(*owned, strict=True))
    limits = Limits(tokens, overhead, multiple)
    found = plan(np.array(client), np.array(lengths), limits)
    parts = [part.tolist() for part in np.split(found.rows, np.cumsum(found.sizes)[:-1])]
    assert parts == plain_plan(client, lengths, limits)
    assert found.even.tolist() == [even([client[i] for i in part]) for part in parts]


def calls(work: Callable[[], Any]) -> int:
    """How many Python functions and built-in ones are called."""
    seen = [0]

    def count(frame: object, event: str, argument: object) -> None:
        seen[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen[0]


def test_work_grows_with_passes_not_with_rows() -> None:
    """A step of 64 times as many rows takes hardly more calls, as long as it is one pass."""

    def step(batch: int) -> int:
        sizes = [5, 6] * (batch // 2)
        source = learner(sizes, 1, 1).examples
        learners = [Learner(source, [list(range(batch))], stream) for stream in range(8)]
        limits = Limits(10**6)
        return calls(lambda: next(steps(learners, limits)))

    step(2)
    assert step(128) < 1.1 * step(2) + 10


def test_single_rows_and_columns_are_the_same() -> None:
    one, two = learner([3, 1, 4], 1, 1).examples, learner([9, 2], 2, 1).examples
    rows = [Row(1, two, 1, 0.25, -7), Row(0, one, 2, 0.5, 3), Row(1, one, 0)]
    assert list(Rows.of(rows)) == rows
    assert list(Rows.of(rows)[1:]) == rows[1:]
    assert Rows.of(Rows.of(rows))[0] == rows[0]
    assert pack([], Limits(10)) == ()
