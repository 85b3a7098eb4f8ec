import random
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest

from fedpl.data import duplicates
from fedpl.data.duplicates import Search, near_duplicate_groups, normalise, without_near_duplicates

LONG = "my flight was late again and nobody at the desk could say why"


@pytest.mark.parametrize(
    "other",
    [
        LONG,
        f"RT @somebody {LONG}",
        f"{LONG.upper()}!!! http://t.co/abc",
        f"@airline {LONG} really",
    ],
)
def test_retweets_and_small_changes_are_found(other: str) -> None:
    assert near_duplicate_groups([LONG, other]).tolist() == [0, 0]


@pytest.mark.parametrize(
    "other", ["thanks for the quick help today", "my flight was early and everybody smiled"]
)
def test_different_texts_are_kept_apart(other: str) -> None:
    assert near_duplicate_groups([LONG, other]).tolist() == [0, 1]


def test_links_are_transitive_and_groups_numbered_by_first_appearance() -> None:
    a = "one two three four five six seven eight nine ten"
    b = "two three four five six seven eight nine ten eleven"
    c = "three four five six seven eight nine ten eleven twelve"
    assert near_duplicate_groups(["unrelated words here", a, b, c]).tolist() == [0, 1, 1, 1]
    assert near_duplicate_groups([a, c], threshold=0.9).tolist() == [0, 1]


def test_other_alphabets_have_words_too() -> None:
    """All of these were one text without words, or one that says iphone."""
    texts = [
        "Рейс задержали на три часа, никто ничего не сказал",
        "рейс задержали на три часа - никто ничего не сказал!",
        "Купил iPhone, очень доволен покупкой",
        "Продал iPhone и совсем не жалею",
        "飛行機が遅れました",
        "機内食は美味しかった",
    ]
    assert near_duplicate_groups(texts).tolist() == [0, 0, 1, 2, 3, 4]
    assert normalise("caf\u00e9 \u2014 tr\u00e8s bon\u2026 lol") == "caf tr s bon lol"  # mostly a to z


def test_texts_without_words_equal_each_other_only() -> None:
    assert near_duplicate_groups(["@a", "@b http://x.y", "word"]).tolist() == [0, 0, 1]


def test_the_first_of_each_group_is_kept() -> None:
    assert without_near_duplicates([LONG, "other words entirely", f"RT {LONG}"]).tolist() == [0, 1]


def test_normalise() -> None:
    assert normalise("RT @Bob: It's GREAT!! https://t.co/x #Fly") == "it's great fly"


def brute_force(texts: Sequence[str], threshold: float) -> list[int]:
    """The definition, pair by pair."""
    shingles = []
    for text in texts:
        words = normalise(text).split()
        shingles.append({tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))})
    groups = list(range(len(texts)))
    for one, other in combinations(range(len(texts)), 2):
        shared = len(shingles[one] & shingles[other])
        if shared / len(shingles[one] | shingles[other]) >= threshold:
            new, old = sorted((groups[one], groups[other]))
            groups = [new if group == old else group for group in groups]
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.58, 0.7, 0.9, 1.0])
def test_what_the_definition_gives(threshold: float) -> None:
    """Sentences of all lengths, and changed copies of them: words taken away, put in, exchanged."""
    for seed in range(6):
        stream = random.Random(seed)
        words = [f"w{i}" for i in range(30)]
        texts = [" ".join(stream.choices(words, k=stream.randrange(14))) for _ in range(40)]
        for _ in range(60):
            copy = stream.choice(texts).split()
            for _ in range(stream.randrange(4)):
                place = stream.randrange(len(copy) + 1)
                copy[place : place + stream.randrange(2)] = stream.choices(words, k=stream.randrange(2))
            texts.append(" ".join(copy))
        stream.shuffle(texts)
        assert near_duplicate_groups(texts, threshold).tolist() == brute_force(texts, threshold)


def pool(number: int) -> list[str]:
    """Form letters of four of ten sentences each, which nearly all differ."""
    stream = random.Random(0)
    sentences = [" ".join(f"word{place}of{i}" for place in range(8)) for i in range(10)]
    return [" ".join(stream.sample(sentences, 4)) for _ in range(number)]


@pytest.mark.parametrize(
    "texts",
    [
        lambda number: ["please help me now"] * number,
        lambda number: [
            f"dear sir thank you for your order number {i} we will answer soon" for i in range(number)
        ],
        lambda number: [f"thank you so {i}" for i in range(number)],
        lambda number: [f"{i} {i + 1} {i + 2} {i + 3}" for i in range(number)],
        pool,
    ],
    ids=["equal", "one template", "common beginning", "a chain", "form letters"],
)
def test_the_work_grows_with_the_number_of_texts(
    texts: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the pairs that are looked at, where each text is like many others: far from one for each pair."""
    monkeypatch.setattr(duplicates, "_COMPANY", 8)  # its limit is reached by few texts
    made: list[Search] = []
    monkeypatch.setattr(duplicates, "Search", lambda *given: made.append(Search(*given)) or made[-1])
    sizes = (500, 1000)
    for number in sizes:
        assert len(near_duplicate_groups(texts(number))) == number
    few, many = (search.pairs for search in made)
    assert many <= 2.4 * few
    assert many < 0.1 * sizes[1] ** 2


def test_memory_is_for_the_texts_and_not_for_what_they_share_with_none() -> None:
    stream = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in own) for own in stream.integers(0, 30_000, (2_000, 25)).tolist()]
    tracemalloc.start()
    near_duplicate_groups(texts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 23 shingles each: a set takes about 2 KB, its numbers and counts the rest.
    assert peak / len(texts) < 9_000
