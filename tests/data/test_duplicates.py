import pytest

from fedpl.data.duplicates import near_duplicate_groups, normalise, without_near_duplicates

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


def test_texts_without_words_equal_each_other_only() -> None:
    assert near_duplicate_groups(["@a", "@b http://x.y", "word"]).tolist() == [0, 0, 1]


def test_the_first_of_each_group_is_kept() -> None:
    assert without_near_duplicates([LONG, "other words entirely", f"RT {LONG}"]).tolist() == [0, 1]


def test_normalise() -> None:
    assert normalise("RT @Bob: It's GREAT!! https://t.co/x #Fly") == "it's great fly"
