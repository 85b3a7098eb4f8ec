import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from fedpl.data import Columns, HubText, Splitting, TextFiles
from fedpl.data.duplicates import near_duplicate_groups
from fedpl.data.files import stem_of
from fedpl.errors import UserError
from tests.conftest import small_rows, write_csv

CLIENTS = ("one-a", "two-b")


def test_declared_splits_and_sorted_classes(small_table: Path) -> None:
    data = TextFiles((str(small_table),), Columns(split="split")).load(0)
    assert data.ids == ("one-a", "three-b", "two-a")
    assert data.classes == ("no", "yes")
    assert [len(data.clients[0].test), len(data.clients[0].validation), len(data.clients[0].train)] == [
        4,
        4,
        16,
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "jsonl.gz", "parquet"])
def test_every_format_gives_the_same_clients(kind: str, tmp_path: Path) -> None:
    rows = small_rows(CLIENTS)
    path = tmp_path / f"table.{kind}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    match kind:
        case "csv":
            write_csv(path, rows)
        case "tsv":
            pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
        case "jsonl":
            path.write_text(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case _:
            pd.DataFrame(rows).to_parquet(path)
    source = TextFiles((str(path),), Columns(split="split"))
    assert source.problems() == []
    reference = TextFiles((str(write_csv(tmp_path / "reference.csv", rows)),), Columns(split="split"))
    assert source.load(0) == reference.load(0)


def test_drawn_splits_are_whole_groups_and_depend_on_seed_and_client_alone(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"{prefix} the story number {i} of some longer text about topic {i}",
            "label": "x",
            "client": c,
        }
        for c in CLIENTS
        for i in range(40)
        for prefix in ("", "rt")
    ]
    path = str(write_csv(tmp_path / "t.csv", rows))
    both = TextFiles((path,)).load(0)
    for client in both.clients:
        assert (len(client.test), len(client.validation), len(client.train)) == (16, 16, 48)
        owner = {}
        parts = ("train", "validation", "test")
        texts = [(text, part) for part in parts for text in getattr(client, part).texts]
        for group, (_, part) in zip(near_duplicate_groups([t for t, _ in texts]), texts, strict=True):
            assert owner.setdefault(int(group), part) == part
    alone = [row for row in rows if row["client"] == CLIENTS[1]]
    single = TextFiles((str(write_csv(tmp_path / "u.csv", alone)),)).load(0)
    assert single.clients[0] == both.clients[1]
    assert TextFiles((path,)).load(1) != both


def test_max_train(small_table: Path) -> None:
    source = TextFiles((str(small_table),), Columns(split="split"), Splitting(max_train=5))
    assert {len(client.train) for client in source.load(0).clients} == {5}


def test_a_missing_column_names_those_there_are(small_table: Path) -> None:
    source = TextFiles((str(small_table),), Columns(text="sentence", client="site"))
    with pytest.raises(UserError, match=r"no column 'sentence', 'site'; it has text, label, client, split"):
        source.load(0)


def test_a_client_without_examples(tmp_path: Path) -> None:
    rows = [row | {"split": "test"} if row["client"] == "two-b" else row for row in small_rows(CLIENTS)]
    source = TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), Columns(split="split"))
    with pytest.raises(UserError, match=r"1 of 2 clients is too small: 'two-b' .24 rows, none for train and"):
        source.load(0)


def test_an_empty_cell_and_an_unknown_split(tmp_path: Path) -> None:
    rows = small_rows(CLIENTS)
    rows[3] = rows[3] | {"label": ""}
    with pytest.raises(UserError, match="line 5 has an empty 'label'; fill"):
        TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), Columns(split="none")).load(0)
    rows[3] = rows[3] | {"label": "no", "split": "holdout"}
    with pytest.raises(UserError, match="split 'holdout' is none of"):
        TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), Columns(split="split")).load(0)


def test_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"\n{{{')
    with pytest.raises(UserError, match=r"line 1: Expecting ',' delimiter .column 13.; expected one JSON"):
        TextFiles((str(path),)).load(0)


def test_problems_without_reading() -> None:
    assert "no such file: nowhere.csv" in TextFiles(("nowhere.csv",)).problems()[0]
    assert TextFiles().problems() == ["data.paths: name at least one file"]
    wrong = Splitting(validation=0.6, test=0.5, near_duplicates=2.0, max_train=-1)
    assert len(HubText("x", splitting=wrong).problems()) == 3


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a dataset of the hub's, which is cached elsewhere than the user's are."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    folder.mkdir()
    return folder


def test_a_dataset_folder_as_the_hub_gives_it(dataset: Path, small_table: Path) -> None:
    (dataset / "train.csv").write_bytes(small_table.read_bytes())
    data = HubText(str(dataset), columns=Columns(split="split")).load(0)
    assert data == TextFiles((str(small_table),), Columns(split="split")).load(0)


def test_the_first_rows_of_a_dataset_are_streamed(dataset: Path, small_table: Path) -> None:
    """Of two files the second is never opened: it could not be read."""
    table = pd.read_csv(small_table).sample(frac=1, random_state=0)
    pd.concat([table] * 50).to_parquet(dataset / "train-0.parquet")  # more than are read at a time
    (dataset / "train-1.parquet").write_bytes(b"no table")
    source = HubText(str(dataset), first=36, columns=Columns(split="none"))
    assert source.problems() == []
    data = source.load(0)
    rows = sum(
        len(split) for client in data.clients for split in (client.train, client.validation, client.test)
    )
    assert rows == 36
    assert data.notes[0] == "data.first: of train the first 36 rows at most are read"
    with pytest.raises(UserError, match="cannot load dataset"):
        HubText(str(dataset), columns=Columns(split="none")).load(0)
    (wrong,) = HubText(str(dataset), subset="train[:9]", first=3).problems()
    assert wrong == "data.first: data.subset 'train[:9]' takes a part already; use one of the two"
    assert HubText("x", first=-1).problems() == ["data.first: 0 for all rows, or how many, got -1"]


def test_the_splits_of_a_dataset_itself(dataset: Path, small_table: Path) -> None:
    table = pd.read_csv(small_table)
    for split, rows in table.groupby("split"):
        rows.drop(columns="split").to_csv(dataset / f"{split}.csv", index=False)
    own = Columns(split="@subset")
    source = HubText(str(dataset), subset="train+validation+test", columns=own)
    assert source.problems() == []
    assert source.load(0) == TextFiles((str(small_table),), Columns(split="split")).load(0)
    part = HubText(str(dataset), subset="train[:90%]+validation + test", columns=own).load(0)
    assert sum(len(client.train) for client in part.clients) == 43
    with pytest.raises(UserError, match=r"cannot load dataset .*Unknown split"):
        HubText(str(dataset), subset="train+holdout", columns=own).load(0)
    assert "@subset is for" in "".join(TextFiles((str(small_table),), own).problems())


def test_labels_of_a_dataset_with_names_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{**row, "label": int(row["label"] == "yes")} for row in small_rows(CLIENTS)]
    names = datasets.ClassLabel(names=["no", "yes"])
    for folder, missing in ((tmp_path / "whole", 0), (tmp_path / "part", -1)):
        rows[2]["label"] = missing
        folder.mkdir()
        datasets.Dataset.from_list(rows).cast_column("label", names).to_parquet(folder / "train.parquet")
    columns = Columns(split="split")
    assert HubText(str(tmp_path / "whole"), columns=columns).load(0).classes == ("no", "yes")
    with pytest.raises(UserError, match="part: row 3 has an empty 'label'"):
        HubText(str(tmp_path / "part"), columns=columns).load(0)


def test_an_unknown_dataset() -> None:
    with pytest.raises(UserError, match="cannot load dataset 'nobody/nothing'"):
        HubText("nobody/nothing").load(0)


def test_a_cap_keeps_each_labels_share_and_is_drawn_by_the_seed(tmp_path: Path) -> None:
    """A table sorted by label gave one class: 64 yes of 150 yes and 150 no."""
    rows = [
        {"text": f"text number {i} of some topic {i * i}", "label": label, "client": "a", "split": split}
        for label, many in (("yes", 150), ("no", 150), ("rare", 20))
        for i in range(many)
        for split in (("test", "validation")[i] if i < 2 else "train",)
    ]
    path = str(write_csv(tmp_path / "sorted.csv", rows))

    def labels(seed: int, most: int = 64) -> tuple[tuple[int, ...], tuple[str, ...]]:
        source = TextFiles((path,), Columns(split="split"), Splitting(max_train=most))
        (client,) = source.load(seed).clients
        return client.train.labels, client.train.texts

    found, texts = labels(0)
    assert [found.count(i) for i in range(3)] == [30, 4, 30]
    assert labels(0)[1] == texts
    assert labels(1)[1] != texts
    assert len(labels(0, 400)[0]) == 314
    assert sorted(labels(0, 3)[0]) == [0, 1, 2]


def test_a_split_column_that_nothing_uses_is_refused_until_something_is_said(
    small_table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"has a column 'split'.*--data.columns.split none"):
        TextFiles((str(small_table),)).load(0)
    drawn = TextFiles((str(small_table),), Columns(split="none")).load(0)
    declared = TextFiles((str(small_table),), Columns(split="split")).load(0)
    assert drawn.clients[0].test != declared.clients[0].test
    other = [{**row, "split": f"part {i}"} for i, row in enumerate(small_rows(CLIENTS))]
    assert TextFiles((str(write_csv(tmp_path / "parts.csv", other)),)).load(0).ids == CLIENTS


@pytest.fixture
def tenants(tmp_path: Path) -> Path:
    """A file for each client, without a client column."""
    for client in CLIENTS:
        rows = [{k: v for k, v in row.items() if k != "client"} for row in small_rows((client,))]
        folder = tmp_path / "tenants" / client[-1]
        folder.mkdir(parents=True)
        write_csv(folder / f"{client}.csv", rows)
    (tmp_path / "tenants" / "read me.txt").write_text("not a table")
    return tmp_path / "tenants"


@pytest.mark.parametrize(
    "paths", [("{}",), ("{}/**/*.csv",), ("{}/b/*", "{}/a/one-a.csv"), ("{}/?/[ot]*.csv",)], ids=str
)
def test_a_file_for_each_client(paths: tuple[str, ...], tenants: Path, tmp_path: Path) -> None:
    by_file = Columns(client="@file", split="split")
    source = TextFiles(tuple(path.format(tenants) for path in paths), by_file)
    assert source.problems() == []
    whole = str(write_csv(tmp_path / "whole.csv", small_rows(CLIENTS)))
    assert source.load(0) == TextFiles((whole,), Columns(split="split")).load(0)


def test_files_that_nobody_can_mean(tenants: Path) -> None:
    by_file = Columns(client="@file", split="split")
    assert "no such file" in TextFiles((f"{tenants}/*.json",), by_file).problems()[0]
    (tenants / "none").mkdir()
    assert "that ends in .csv, " in TextFiles((str(tenants / "none"),), by_file).problems()[0]
    assert TextFiles(("",)).problems() == ["data.paths: no such file: "]
    assert stem_of("a/b.x.CSV.GZ") == "b.x"
    assert "expected one of" in TextFiles((f"{tenants}/*",), by_file).problems()[0]
    assert "@file is for" in HubText("x", columns=by_file).problems()[0]
    with pytest.raises(UserError, match="have the same content"):
        TextFiles((str(tenants), f"{tenants}/a/one-a.csv"), by_file).load(0)
    copy = tenants / "b" / "one-a.csv"
    copy.write_text((tenants / "a" / "one-a.csv").read_text().replace("great", "good"))
    with pytest.raises(UserError, match="have the same name, 'one-a', by which clients are called"):
        TextFiles((str(tenants),), by_file).load(0)
    copy.rename(tenants / "b" / "new-a.csv").write_text("text,label,split\n")
    (tenants / "b" / "newer-a.csv").write_text("text,label,split\n")
    (note,) = TextFiles((str(tenants),), by_file).load(0).notes
    assert note.startswith("2 files without rows: ")


def test_a_file_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t[1].csv", small_rows(CLIENTS))
    assert TextFiles((str(path),), Columns(split="split")).load(0).ids == CLIENTS
