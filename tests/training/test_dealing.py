"""A client's examples in two halves."""

import torch

from fedpl.training.dealing import two_halves


def dealt(alike: list[int], seed: int = 0) -> tuple[list[int], list[int]]:
    return two_halves(alike, torch.Generator().manual_seed(seed))


def test_every_example_is_in_one_half() -> None:
    for alike in ([0, 1], [0, 1, 2], list(range(31)), [0, 0, 1, 1, 1, 2, 3, 4, 4], [0] * 5):
        one, other = dealt(alike)
        assert sorted(one + other) == list(range(len(alike)))
        assert len(one) >= len(other) > 0


def test_near_duplicates_stay_together() -> None:
    alike = [0, 1, 0, 2, 3, 1, 4, 5, 0, 6]
    for seed in range(20):
        for half in dealt(alike, seed):
            groups = {alike[place] for place in half}
            assert sorted(half) == [place for place, number in enumerate(alike) if number in groups]


def test_halves_are_of_one_size_where_groups_allow_it() -> None:
    for seed in range(20):
        one, other = dealt([0, 0, 0, 0, 1, 2, 3, 4, 5], seed)
        assert (len(one), len(other)) == (5, 4)
    assert {len(half) for half in dealt([0, 0, 0, 1, 1, 1])} == {3}


def test_texts_of_one_template_are_dealt_one_by_one() -> None:
    assert [len(half) for half in dealt([0] * 8)] == [4, 4]
    assert [len(half) for half in dealt([0] * 8 + [1])] == [5, 4]  # an eighth would be no half
    assert [len(half) for half in dealt([0] * 6 + [1, 2])] == [6, 2]


def test_chance_decides_and_nothing_else() -> None:
    drawn = {tuple(sorted(dealt(list(range(8)), seed)[0])) for seed in range(40)}
    assert len(drawn) > 20
    assert dealt(list(range(8)), 3) == dealt(list(range(8)), 3)
