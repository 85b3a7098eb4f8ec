"""A client's examples in two halves that are to each other as two clients of one kind."""

from collections.abc import Sequence

import torch

_LEAST = 0.25  # of the examples: a half has no fewer


def two_halves(alike: Sequence[int], stream: torch.Generator) -> tuple[list[int], list[int]]:
    """Places of the examples of both halves, dealt by chance alone.

    So halves also differ in how many examples of a class each happens to have. Near-duplicates stay together:
    halves that have one text in two wordings agree on more than what the examples stand for. Where too much
    is nearly the same for two halves (texts of one template) examples are dealt one by one.

    Args:
        alike: Of each example, the number of its group of near-duplicates.
        stream: Source of chance.
    """
    groups: dict[int, list[int]] = {}
    for place, number in enumerate(alike):
        groups.setdefault(number, []).append(place)
    halves = _dealt(list(groups.values()), stream)
    if len(halves[1]) < _LEAST * len(alike):
        halves = _dealt([[place] for place in range(len(alike))], stream)
    return halves


def _dealt(units: list[list[int]], stream: torch.Generator) -> tuple[list[int], list[int]]:
    """Large units first, each to the half that has fewer examples, the first one to the first."""
    order = [units[i] for i in torch.randperm(len(units), generator=stream).tolist()]
    one, other = list[int](), list[int]()
    for unit in sorted(order, key=lambda unit: -len(unit)):
        (other if len(other) < len(one) else one).extend(unit)
    return (one, other) if len(one) >= len(other) else (other, one)
