"""Test rows in files of their own."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedpl.data import Columns, Dirichlet, Iid, Partition, Splitting, TextFiles
from fedpl.errors import UserError
from tests.conftest import small_rows, write_csv

CLIENTS = ("one-a", "two-b")


def test_files_for_the_test_alone(tmp_path: Path) -> None:
    """The others are split into training and validation; a client without test rows is named."""
    rows = [{key: row[key] for key in ("text", "label", "client")} for row in small_rows(CLIENTS)]
    train = write_csv(tmp_path / "train.csv", [row for row in rows if "number 2" not in row["text"]])
    test = write_csv(tmp_path / "test.csv", [row for row in rows if "number 2" in row["text"]])
    source = TextFiles((str(train),), test_paths=(str(test),))
    data = source.load(0)
    for client in data.clients:
        assert all("number 2" in text for text in client.test.texts)
        assert not any("number 2" in text for text in (*client.train.texts, *client.validation.texts))
        assert (len(client.train), len(client.validation), len(client.test)) == (15, 4, 5)
    assert (
        len(replace(source, splitting=Splitting(max_test=3, max_validation=1)).load(0).clients[0].test) == 3
    )
    assert "says it already" in " ".join(replace(source, columns=Columns(split="split")).problems())
    assert "data.test_paths: no such file: n.csv" in replace(source, test_paths=("n.csv",)).problems()

    alone = write_csv(tmp_path / "alone.csv", [row for row in rows[:24] if "number 2" in row["text"]])
    with pytest.raises(UserError, match=rf"'{CLIENTS[1]}' .19 rows, none for test"):
        replace(source, test_paths=(str(alone),)).load(0)
    kept = replace(source, test_paths=(str(alone),), small_clients="train_only").load(0)
    assert [len(client.test) for client in kept.clients] == [5, 0]
    only = write_csv(tmp_path / "only.csv", [{"text": "a new one", "label": "maybe", "client": CLIENTS[0]}])
    with pytest.raises(UserError, match=r"labels that stand in no train row.*'maybe'"):
        replace(source, test_paths=(str(test), str(only))).load(0)


def test_a_file_a_client_in_a_folder_for_each_split(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("text", "label")} for row in small_rows(CLIENTS)]
    for folder, own in (("train", rows[:18]), ("test", rows[18:24])):
        (tmp_path / folder).mkdir()
        write_csv(tmp_path / folder / "site.csv", own)
    source = TextFiles(
        (str(tmp_path / "train"),), Columns(client="@file"), test_paths=(str(tmp_path / "test"),)
    )
    (client,) = source.load(0).clients
    assert client.id == "site"
    assert client.test.texts == tuple(row["text"] for row in rows[18:24])


@pytest.mark.parametrize("partition", [Iid(3), Dirichlet(3, 5.0)])
def test_made_up_clients_keep_test_rows_apart(tmp_path: Path, partition: Partition) -> None:
    rows = [{key: row[key] for key in ("text", "label", "client")} for row in small_rows(CLIENTS, 60)]
    train, test = (
        write_csv(tmp_path / name, own) for name, own in (("a.csv", rows[::2]), ("b.csv", rows[1::2]))
    )
    data = TextFiles((str(train),), test_paths=(str(test),), partition=partition).load(0)
    tested = {text for client in data.clients for text in client.test.texts}
    assert tested <= {row["text"] for row in rows[1::2]}
    assert sum(len(client.test) for client in data.clients) == 60
