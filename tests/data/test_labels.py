"""What a run says about its data, and labels that nobody can have meant."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedpl.data import ClientData, Columns, FederatedData, Split, TextFiles, Tweets, describe
from fedpl.errors import UserError
from tests.conftest import small_rows, write_csv

SPLIT = Columns(split="split")


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labelled(labels: Sequence[Any]) -> list[dict[str, Any]]:
    """Forty rows of two clients whose labels take turns."""
    rows = small_rows(("one-a", "two-b"), 20)
    return [row | {"label": labels[i // 2 % len(labels)]} for i, row in enumerate(rows)]


def told(rows: Sequence[dict[str, Any]], tmp_path: Path, columns: Columns = SPLIT) -> list[str]:
    return list(describe(TextFiles((lines(tmp_path / "t.jsonl", rows),), columns).load(0)))


def refusal(rows: Sequence[dict[str, Any]], tmp_path: Path, columns: Columns = SPLIT) -> str:
    with pytest.raises(UserError) as refused:
        told(rows, tmp_path, columns)
    return str(refused.value)


def test_sizes_and_classes() -> None:
    assert list(describe(Tweets(topics=("united",)).load(0))) == [
        "data: 288 examples (train 64, validation 64, test 160); 2 classes: negative 144, positive 144"
    ]


def test_many_classes_are_shortened(tmp_path: Path) -> None:
    rows = [row | {"label": f"class {i % 100}"} for i, row in enumerate(small_rows(("a", "b"), 200))]
    first = told(rows, tmp_path, Columns(split="none"))[0]
    assert "100 classes: class 0 4, class 1 4" in first
    assert "and 88 more" in first


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (["pos", "Pos", "neg"], "warning: classes that differ by case or spaces alone: 'Pos', 'pos'"),
        (["pos ", "pos", "neg"], "warning: classes that differ by case or spaces alone: 'pos', 'pos '"),
        (
            ["pos", "neg", 0, 1],
            "warning: classes are partly numbers ('0', '1') and partly words ('neg', 'pos')",
        ),
        (
            [0.5, 0.25],
            "warning: classes are numbers with fractions ('0.25', '0.5'): each is a class of its own",
        ),
        (["yes", "no", "None"], "warning: 'None' may stand for no label; it is a class"),
        (["yes"], "warning: there is one class alone, 'yes': there is nothing to learn"),
    ],
)
def test_what_looks_wrong_is_said(labels: list[Any], line: str, tmp_path: Path) -> None:
    assert line in told(labelled(labels), tmp_path)
    assert not any(said.startswith("warning") for said in told(labelled(["pos", "neg"]), tmp_path))


def test_whole_numbers_are_the_same_class_however_they_are_written(tmp_path: Path) -> None:
    assert told(labelled([1, 1.0, 0, 0.0]), tmp_path)[0].endswith("2 classes: 0 20, 1 20")


def test_a_label_that_is_seen_once(tmp_path: Path) -> None:
    rows = labelled(["yes", "no"])
    rows[10] = rows[10] | {"label": "ye"}
    assert "warning: 1 label seen once: 'ye'" in told(rows, tmp_path)


def test_clients_that_lack_classes(tmp_path: Path) -> None:
    rows = labelled(["x", "y", "z"])
    rows = [row | {"label": "x"} if (row["label"], row["client"]) == ("z", "one-a") else row for row in rows]
    assert "1 client without some classes in training: 'one-a' (no 'z')" in told(rows, tmp_path)
    rows = [row | {"label": "y"} if row["client"] == "one-a" else row for row in rows]
    (line,) = [line for line in told(rows, tmp_path) if "one class alone" in line]
    assert line.startswith("warning: 1 client with one class alone in training")
    assert line.endswith("'one-a' ('y')")


def test_repeated_texts_and_those_that_are_trained_and_tested(tmp_path: Path) -> None:
    rows = labelled(["yes", "no"])
    again = [{**rows[19], "label": "other"}, {**rows[19], "split": "test"}, {**rows[18], "client": "two-b"}]
    said = told([*rows, {**rows[19], "label": "other", "split": "validation"}, *again], tmp_path)
    assert "3 examples with a text that the same client has before, 1 time with another label" in said
    assert any(line.startswith("warning: 2 validation or test examples with a text") for line in said)


def test_ids_that_differ_by_a_space(tmp_path: Path) -> None:
    rows = small_rows(("one-a", "One-a "))
    assert "warning: client ids that differ by case or spaces alone: 'One-a ', 'one-a'" in told(
        rows, tmp_path
    )


@pytest.mark.parametrize("label", [["pos"], {"pos": 1}, []])
def test_lists_are_no_labels(label: Any, tmp_path: Path) -> None:
    rows = labelled(["yes", "no"])
    rows[2] = rows[2] | {"label": label}
    assert f"line 3: 'label' holds a {type(label).__name__}, expected text or a number" in refusal(
        rows, tmp_path
    )


@pytest.mark.parametrize("label", [None, float("nan")])
def test_missing_labels(label: Any, tmp_path: Path) -> None:
    rows = labelled(["yes", "no"])
    rows[2], rows[5] = rows[2] | {"label": label}, rows[5] | {"label": label}
    found = refusal(rows, tmp_path)
    assert "line 3 has an empty 'label', the first of 2 such cells" in found


@pytest.mark.parametrize("label", ["null", "NaN", " null ", "#N/A"])
def test_missing_labels_as_words(label: str, tmp_path: Path) -> None:
    rows = labelled(["yes", "no"])
    rows[2] = rows[2] | {"label": label}
    assert f"line 3: 'label' is '{label}', which stands for no label" in refusal(rows, tmp_path)


def test_a_text_column_taken_for_labels(tmp_path: Path) -> None:
    found = refusal(labelled(["yes", "no"]), tmp_path, Columns(label="text", split="split"))
    assert "'text' has 40 different values in 40 rows, expected a few classes; is it another column?" in found
    assert "of one-a was" not in found, "these are people's words"


def test_labels_that_are_declared_for_the_test_alone(tmp_path: Path) -> None:
    rows = labelled(["yes", "no"])
    rows = [row | {"label": "new"} if row["split"] == "test" else row for row in rows]
    assert "labels that stand in no train row, only in validation or test rows: 'new'" in refusal(
        rows, tmp_path
    )


def test_what_a_source_of_ones_own_gives_is_looked_at_too() -> None:
    train, test = Split(("a", "b"), (0, 1)), Split(("c",), (2,))
    data = FederatedData((ClientData("x", train, Split((), ()), test),), ("p", "q", "r"))
    said = list(describe(data))
    assert "warning: no client has training examples of 'r'" in said
    assert "warning: no client has validation examples: there are no scores on them" in said
    with pytest.raises(UserError, match="1 of 1 client without train examples"):
        FederatedData((ClientData("x", Split((), ()), test, test),), ("p", "q", "r"))


def test_a_file_that_is_there_twice(tmp_path: Path) -> None:
    rows = small_rows(("one-a", "two-b"))
    first, copy = write_csv(tmp_path / "a.csv", rows), write_csv(tmp_path / "copy.csv", rows)
    for again in (str(first), f"{tmp_path}/./a.csv", str(copy)):
        with pytest.raises(UserError, match=r"a\.csv and .* have the same content; name one"):
            TextFiles((str(first), again), SPLIT).load(0)
