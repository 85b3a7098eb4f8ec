"""Rows split by when they were."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fedpl.data import Columns, Iid, Splitting, TextFiles
from fedpl.errors import UserError
from tests.conftest import write_csv

COLUMNS = Columns(time="when")
FIRST = datetime(2024, 2, 20, 12)


def rows_of(moments: Sequence[Any]) -> list[dict[str, Any]]:
    """Two clients; texts without near-duplicates, in no order of time."""
    stream = np.random.default_rng(0)
    rows = [
        {"text": f"{i} " + " ".join(f"w{word}" for word in stream.integers(0, 9999, 6)), "when": own}
        for i, own in enumerate(moments)
    ]
    named = [row | {"label": ("no", "yes")[i % 3 == 0], "client": "ab"[i % 2]} for i, row in enumerate(rows)]
    return [named[i] for i in stream.permutation(len(named)).tolist()]


def places(source: TextFiles) -> list[list[list[int]]]:
    """Numbers of the rows, by client and split, sorted."""
    clients = source.load(0).clients
    splits = [[client.train, client.validation, client.test] for client in clients]
    return [[sorted(int(text.split()[0]) for text in own.texts) for own in each] for each in splits]


EXPECTED = [[[*range(k, 24, 2)], [*range(24 + k, 32, 2)], [*range(32 + k, 40, 2)]] for k in (0, 1)]


@pytest.mark.parametrize(
    "moments",
    [
        [i * 1.5 - 7 for i in range(40)],
        [(FIRST + timedelta(hours=7 * i)).isoformat() for i in range(40)],
        [f"{date(2024, 2, 20) + timedelta(days=i)}" for i in range(40)],
    ],
    ids=["numbers", "moments", "days"],
)
def test_the_latest_are_the_test(moments: Sequence[Any], tmp_path: Path) -> None:
    path = str(write_csv(tmp_path / "t.csv", rows_of(moments)))
    assert places(TextFiles((path,), COLUMNS)) == EXPECTED
    assert places(TextFiles((path,))) != EXPECTED


def test_what_a_typed_table_holds(tmp_path: Path) -> None:
    for number, own in enumerate(
        ([FIRST + timedelta(days=i) for i in range(40)], [date(2024, 1, 1 + i % 31) for i in range(40)])
    ):
        path = tmp_path / f"{number}.parquet"
        parquet.write_table(pa.Table.from_pylist(rows_of(own)), path)
        found = places(TextFiles((str(path),), COLUMNS))
        if number == 0:
            assert found == EXPECTED
        else:  # 31 days: those of the second round are drawn among their equals
            assert [[len(split) for split in each] for each in found] == [[12, 4, 4]] * 2


def test_files_for_the_test_and_made_up_clients(tmp_path: Path) -> None:
    rows = rows_of(range(40))
    early = write_csv(tmp_path / "train.csv", [row for row in rows if row["when"] < 32])
    late = write_csv(tmp_path / "test.csv", [row for row in rows if row["when"] >= 32])
    source = TextFiles((str(early),), COLUMNS, Splitting(validation=0.25), test_paths=(str(late),))
    assert places(source) == EXPECTED
    path = str(write_csv(tmp_path / "t.csv", rows))
    for train, validation, test in places(TextFiles((path,), COLUMNS, partition=Iid(3))):
        assert max(train) < min(validation) <= max(validation) < min(test)


def test_near_duplicates_stay_together_at_their_latest(tmp_path: Path) -> None:
    rows = rows_of(range(40))
    first = next(row for row in rows if row["when"] == 0)
    last = next(row for row in rows if row["when"] == 38)
    first["text"] = f"0 {last['text'].partition(' ')[2]}"
    path = str(write_csv(tmp_path / "t.csv", rows))
    (_, _, test), _ = places(TextFiles((path,), COLUMNS))
    assert test == [0, 34, 36, 38]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("tomorrow", "'when' is 'tomorrow', expected a number, or a date such as 2024-05-31"),
        ("nan", "'when' is 'nan', expected a number"),
        ("31.05.2024", "'when' is '31.05.2024', expected"),
        ("", "has an empty 'when'"),
        ("2024-05-31", r"'when' is a number, and a date in .*: line 4; write all in one way"),
    ],
)
def test_no_time(cell: str, said: str, tmp_path: Path) -> None:
    rows = rows_of(range(40))
    rows[2]["when"] = cell
    path = str(write_csv(tmp_path / "t.csv", rows))
    with pytest.raises(UserError, match=said):
        TextFiles((path,), COLUMNS).load(0)
    assert any("time: data.columns.split says it" in line for line in Columns(time="t", split="s").problems())
