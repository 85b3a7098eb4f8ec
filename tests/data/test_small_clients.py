"""Clients with too few rows: all of them named at once, left out, or trained without scores."""

from pathlib import Path

import pytest

from fedpl.data import Columns, Splitting, TextFiles
from fedpl.data.description import describe
from fedpl.errors import UserError
from tests.conftest import small_rows, write_csv

SPLITS = ("train", "validation", "test")


def rows_of(client: str, number: int, template: str = "") -> list[dict[str, str]]:
    """Rows without a declared split."""
    rows = [
        {"text": f"{i} thoughts on {i * 7} of {i}", "label": ("no", "yes")[i % 2], "client": client}
        for i in range(number)
    ]
    return [row | {"text": f"{template} {i}"} for i, row in enumerate(rows)] if template else rows


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = rows_of("big", 20) + rows_of("single", 1) + rows_of("pair", 2)
    rows += rows_of("form", 12, "dear sir or madam we thank you for your letter of the day")
    return str(write_csv(tmp_path_factory.mktemp("table") / "t.csv", rows))


def sizes(source: TextFiles, seed: int = 0) -> dict[str, list[int]]:
    return {c.id: [len(getattr(c, split)) for split in SPLITS] for c in source.load(seed).clients}


def test_all_that_are_too_small_are_named_with_counts_and_their_cause(table: str) -> None:
    with pytest.raises(UserError) as refused:
        TextFiles((table,)).load(0)
    said = str(refused.value)
    assert said.startswith("3 of 4 clients are too small: ")
    assert "'single' (1 row, none for validation and test)" in said
    assert "'pair' (2 rows, none for validation and test)" in said
    assert "'form' (12 rows in 1 group of near-duplicates, none for train and validation)" in said
    assert "--data.small_clients drop" in said
    assert "--data.splitting.near_duplicates 0" in said
    assert "\n" not in said


def test_without_templates_near_duplicates_are_not_blamed(tmp_path: Path) -> None:
    path = str(write_csv(tmp_path / "t.csv", rows_of("big", 20) + rows_of("pair", 2)))
    with pytest.raises(UserError, match="1 of 2 clients is too small: 'pair'") as refused:
        TextFiles((path,)).load(0)
    assert "near" not in str(refused.value)


def test_dropped(table: str) -> None:
    source = TextFiles((table,), small_clients="drop")
    assert sizes(source) == {"big": [12, 4, 4]}
    assert any(
        line.startswith("3 of 4 clients are left out as too small: 'form'") for line in source.load(0).notes
    )


def test_trained_only(table: str) -> None:
    source = TextFiles((table,), small_clients="train_only")
    assert sizes(source) == {"big": [12, 4, 4], "form": [12, 0, 0], "pair": [2, 0, 0], "single": [1, 0, 0]}
    said = list(describe(source.load(0)))
    assert any(line.startswith("3 of 4 clients are too small, trained and not scored") for line in said)
    assert any("3 clients without test examples" in line and "over the 1 other" in line for line in said)


def test_templates_told_apart(table: str) -> None:
    source = TextFiles((table,), splitting=Splitting(near_duplicates=0.0), small_clients="drop")
    assert sizes(source) == {"big": [12, 4, 4], "form": [8, 2, 2]}


@pytest.mark.parametrize(("least", "kept"), [(20, ["big"]), (12, ["big", "form"]), (3, ["big", "form"])])
def test_the_least_number_of_rows(table: str, least: int, kept: list[str]) -> None:
    splitting = Splitting(near_duplicates=0.0)
    source = TextFiles((table,), splitting=splitting, min_examples=least, small_clients="drop")
    assert list(sizes(source)) == kept
    assert TextFiles((table,), min_examples=0).problems() == ["data.min_examples: at least 1, got 0"]


def test_rows_that_are_declared_for_a_test_are_never_trained_on(tmp_path: Path) -> None:
    rows = small_rows(("one-a",)) + [r for r in small_rows(("two-b",)) if r["split"] != "validation"]
    rows += small_rows(("six-a",), 9)
    path = str(write_csv(tmp_path / "t.csv", rows))
    columns = Columns(split="split")
    found = sizes(TextFiles((path,), columns, min_examples=10, small_clients="train_only"))
    assert found == {"one-a": [16, 4, 4], "six-a": [1, 0, 0], "two-b": [16, 0, 4]}
    untrained = [row | {"split": "test"} if row["client"] == "two-b" else row for row in rows]
    path = str(write_csv(tmp_path / "u.csv", untrained))
    with pytest.raises(UserError, match="train_only: 1 of 3 clients is without a row to train on: 'two-b'"):
        TextFiles((path,), columns, small_clients="train_only").load(0)
    assert list(sizes(TextFiles((path,), columns, small_clients="drop"))) == ["one-a", "six-a"]


def test_nobody_is_left(tmp_path: Path) -> None:
    path = str(write_csv(tmp_path / "t.csv", rows_of("pair", 2) + rows_of("other", 2)))
    with pytest.raises(UserError, match="gave no clients"):
        TextFiles((path,), small_clients="drop").load(0)


def test_of_a_thousand_some_are_named(tmp_path: Path) -> None:
    rows = [row for i in range(1000) for row in rows_of(f"tenant {i:04d}", 2)]
    path = str(write_csv(tmp_path / "t.csv", rows))
    with pytest.raises(UserError, match="1000 of 1,000 clients") as refused:
        TextFiles((path,)).load(0)
    assert "and 980 more" in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_a_large_group_goes_to_training_where_what_is_left_is_enough(tmp_path: Path) -> None:
    template = "dear sir or madam we thank you for your letter of the day"
    rows = rows_of("form", 40) + rows_of("form", 60, template)
    source = TextFiles((str(write_csv(tmp_path / "t.csv", rows)),))
    for seed in range(5):
        assert sizes(source, seed) == {"form": [60, 20, 20]}
        assert source.load(seed).notes == ()


def test_groups_that_leave_little_for_training_are_told(tmp_path: Path) -> None:
    """Three templates, none of which fits into a tenth of the rows: one has to go there."""
    templates = (
        "dear sir or madam we thank you for your letter of the day",
        "the crew was so very kind to us all",
    )
    rows = rows_of("form", 8, templates[0]) + rows_of("form", 2, templates[1])
    rows += rows_of("form", 2, "my bag has not come with me on this plane")
    source = TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), Columns(), Splitting(0.1, 0.1))
    told = set()
    for seed in range(8):
        data = source.load(seed)
        train = len(data.clients[0].train)
        line = (
            f"warning: near-duplicates leave 1 client with few rows for training: 'form' ({train} of 12 rows)"
        )
        assert data.notes == ((line,) if train < 5 else ())
        told.add(train < 5)
    assert told == {False, True}
