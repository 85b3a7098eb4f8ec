"""Fewer of a client's rows than there are: which ones, drawn."""

from collections.abc import Hashable, Sequence

import numpy as np


def stratified(
    places: Sequence[int], labels: Sequence[Hashable], most: int, stream: np.random.Generator
) -> list[int]:
    """So many of the places, drawn so that each label keeps its share; in their order.

    Args:
        places: Where to draw from.
        labels: Of every place there is.
        most: How many to draw.
        stream: Random numbers.
    """
    by_label: dict[Hashable, list[int]] = {}
    for place in stream.permutation(np.array(places)).tolist():
        by_label.setdefault(labels[place], []).append(place)
    # Each label's places stand at even distances from 0 on: the first of all have its share of each, and
    # one of each label where there is room; of labels that tie, those that were drawn first.
    shares = enumerate(by_label.values())
    ranks = [(i / len(own), number, place) for number, own in shares for i, place in enumerate(own)]
    chosen = {place for _, _, place in sorted(ranks)[:most]}
    return [place for place in places if place in chosen]


def few_shot(
    places: Sequence[int], labels: Sequence[Hashable], most: int, stream: np.random.Generator
) -> list[int]:
    """At most so many places of each label, drawn; in their order. Arguments as of `stratified`."""
    by_label: dict[Hashable, list[int]] = {}
    for place in stream.permutation(np.array(places)).tolist():
        by_label.setdefault(labels[place], []).append(place)
    chosen = {place for own in by_label.values() for place in own[:most]}
    return [place for place in places if place in chosen]
