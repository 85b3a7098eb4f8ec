"""Files as they should not be, through the command line: one line with the place, nothing left behind."""

import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from jsonargparse import ArgumentParser
from pyarrow import parquet
from rich.console import Console

from fedpl.cli import make_parser, read
from fedpl.data import describe
from fedpl.endings import run_main
from fedpl.runs import experiment
from tests.conftest import small_rows

CLIENTS = ("one-a", "two-b")
ROWS = small_rows(CLIENTS)
NAMED = "labels that stand in no train row, only in validation or test rows: 'new', the first in "


def lines(rows: Sequence[dict[str, Any]] = ROWS, **settings: Any) -> str:
    return "".join(json.dumps(row, **settings) + "\n" for row in rows)


def table(rows: Sequence[dict[str, Any]] = ROWS, separator: str = ",") -> str:
    whole = [rows[0], *(row.values() for row in rows)]
    return "".join(separator.join(map(str, row)) + "\n" for row in whole)


def columnar(rows: Sequence[dict[str, Any]] = ROWS) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def but(place: int = 9, **cells: Any) -> list[dict[str, Any]]:
    """The rows with other cells in one of them; the tenth stands in line 11 of a CSV file."""
    return [{**row, **cells} if i == place else row for i, row in enumerate(ROWS)]


def without(column: str) -> list[dict[str, Any]]:
    return [{name: cell for name, cell in row.items() if name != column} for row in ROWS]


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    return make_parser("fit", "")


@pytest.fixture
def words(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Writes a file into an empty folder, in which runs would be too, and gives the command line."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | bytes, *options: str) -> list[str]:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        common = [f"--model.path={small_model}", "--data=fedpl.data.TextFiles", f"--data.paths=[{name}]"]
        return [*common, "--data.columns.split=split", "--rounds=1", "--accelerator=cpu", *options]

    return write


def refusal(parser: ArgumentParser, argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a run says that is refused, all of it."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as left:
        run_main(lambda: bool(experiment.run(read(parser, argv), Console())))
    said = capsys.readouterr()
    assert left.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return said.err.removeprefix("error: ").removesuffix("\n")


REFUSED: dict[str, tuple[str, str | bytes, str]] = {
    # encodings
    "latin-1 in JSON": (
        "t.jsonl",
        lines(but(text="charmé"), ensure_ascii=False).encode("latin-1"),
        "t.jsonl: line 10 is not written in utf-8; say in what, for example --data.encoding latin-1",
    ),
    "UTF-16 without its mark": ("t.csv", table().encode("utf-16-le"), "example --data.encoding utf-16-le"),
    "the same the other way round": ("t.jsonl", lines().encode("utf-16-be"), "--data.encoding utf-16-be"),
    # files that are none, or something else
    "empty JSON lines": ("t.jsonl", "", "t.jsonl: is empty, expected one JSON object a line"),
    "an empty array": ("t.json", "[]", "t.json: is empty, expected one JSON object a line"),
    "empty Parquet": (
        "t.parquet",
        b"",
        "cannot read t.parquet: Parquet file size is 0 bytes; it is not whole",
    ),
    "Parquet without rows": ("t.parquet", columnar(ROWS[:1]), "1 of 1 client is too small: 'one-a' (1 row,"),
    "Parquet cut short": (
        "t.parquet",
        columnar()[:-20],
        "or this is not a parquet file; it is not whole: fetch",
    ),
    "Parquet with a hole": ("t.parquet", columnar()[:200] + columnar()[400:], "cannot read t.parquet: "),
    "gzip cut short": (
        "t.jsonl.gz",
        gzip.compress(lines().encode())[:-30],
        "it is not whole: fetch or write",
    ),
    "gzip by another name": ("t.csv", gzip.compress(table().encode()), "let its name end in .gz"),
    "Parquet by another name": ("t.csv", columnar(), "let its name end in .parquet"),
    "a spreadsheet": ("t.csv", b"PK\x03\x04" + bytes(99), "t.csv: is a spreadsheet or zip archive"),
    "a pointer of Git LFS": (
        "t.parquet",
        "version https://git-lfs.github.com/spec/v1\n",
        "with git lfs pull",
    ),
    "a web page": ("t.csv", "\n<!DOCTYPE html>\n<html></html>", "t.csv: is a web page, by its first bytes"),
    "lines of CSV named JSON": (
        "t.jsonl",
        table(),
        "t.jsonl: line 1: Expecting value (column 1); expected one",
    ),
    # columns
    "a column less": (
        "t.csv",
        table(without("label")),
        "no column 'label'; it has text, client, split; name",
    ),
    "a space in the first line": (
        "t.csv",
        table().replace("label", " label", 1),
        "it has text, ' label', client",
    ),
    "no first line": (
        "t.csv",
        table().partition("\n")[2],
        "t.csv: no column 'text', 'label', 'client', 'split'",
    ),
    "columns of JSON": (
        "t.json",
        json.dumps({"text": ["a"], **ROWS[0], "label": []}),
        "several classes for one row (multi-label) are not done",
    ),
    "a key twice": (
        "t.jsonl",
        lines(ROWS[:2]) + '{"text": "mine", ' + lines(ROWS[2:])[1:],
        "t.jsonl: line 3 names the key 'text' twice; keep one of them",
    ),
    "a key twice in an array": (
        "t.json",
        f'[{lines(ROWS[:1])}, {{"a": 1, "a": 2}}]',
        "row 2 names the key 'a' tw",
    ),
    "commas after objects": (
        "t.jsonl",
        lines().replace("}\n", "},\n"),
        "line 1: Extra data (column 110); expect",
    ),
    # cells
    "a text of spaces": (
        "t.csv",
        table(but(text="  ")),
        "t.csv: line 11 has an empty 'text'; fill it in, or",
    ),
    "a text that nobody sees": (
        "t.jsonl",
        lines(but(text="\u200b\ufeff\x00")),
        "line 10 has an empty 'text'",
    ),
    "a client of spaces": ("t.csv", table(but(client=" ")), "t.csv: line 11 has an empty 'client'"),
    "a label of a spreadsheet": (
        "t.csv",
        table(but(label="#DIV/0!")),
        "line 11: 'label' is '#DIV/0!', which",
    ),
    "nested text": (
        "t.jsonl",
        lines(but(text={"a": 1})),
        "t.jsonl: line 10: 'text' holds a dict, expected text",
    ),
    "nested split": (
        "t.jsonl",
        lines(but(split=["train"])),
        "t.jsonl: line 10: 'split' holds a list, expected",
    ),
    "bytes": ("t.parquet", columnar([{**row, "text": b"a"} for row in ROWS]), "row 1: 'text' holds a bytes"),
    "no client": (
        "t.parquet",
        columnar(but(client=None)),
        "t.parquet: row 10 has an empty 'client'; fill it",
    ),
    "numbers for labels": (
        "t.jsonl",
        lines([{**row, "label": i / 7} for i, row in enumerate(ROWS)]),
        "t.jsonl: 'label' has 48 different values in 48 rows, expected a few classes; is it another column?",
    ),
    "another word for a split": (
        "t.csv",
        table(but(split="holdout")),
        "t.csv: line 11: 'split': split 'holdout' is none of train, validation, test",
    ),
    "a label in the test alone": (
        "t.csv",
        table(but(2, label="new")),
        f"{NAMED}t.csv: line 4, 'label'; expected",
    ),
    "a client without training": (
        "t.csv",
        table([{**row, "split": "test"} if row["client"] == "two-b" else row for row in ROWS]),
        "1 of 2 clients is too small: 'two-b' (24 rows, none for train and validation); expected 1 row",
    ),
}


@pytest.mark.parametrize(("name", "content", "said"), REFUSED.values(), ids=REFUSED)
def test_one_line_and_nothing_left(
    name: str,
    content: str | bytes,
    said: str,
    parser: ArgumentParser,
    words: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said in refusal(parser, words(name, content), capsys)


def unreadable(path: Path, *_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied", str(path))


def test_paths_that_cannot_be_read(
    parser: ArgumentParser,
    words: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argv = words("t.csv", table())
    Path("folder.csv").mkdir()
    told = partial(refusal, parser, capsys=capsys)
    assert told([*argv, "--data.paths=[folder.csv]"]).startswith("data.paths: no file below folder.csv that")
    assert told([*argv, "--data.paths=['*.tsv']"]) == "data.paths: no such file: *.tsv"
    whole = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *rest: (unreadable if path.suffix == ".csv" else whole)(path, *rest)
    )
    assert told(argv) == "cannot read t.csv: Permission denied"


def said_of(
    rows: Sequence[dict[str, Any]], parser: ArgumentParser, words: Callable[..., list[str]]
) -> list[str]:
    return list(describe(read(parser, words("t.jsonl", lines(rows))).data.load(0)))


ACCEPTED: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    "a byte order mark in JSON lines": ("t.jsonl", "\ufeff" + lines(), ()),
    "UTF-16, as is said": ("t.jsonl", lines().encode("utf-16"), ("--data.encoding=utf-16",)),
    "line ends of old": ("t.csv", table().replace("\n", "\r"), ()),
    "objects of several lines": ("t.json", lines(indent=1), ()),
    "objects without lines": ("t.json", lines().replace("\n", ""), ()),
    "splits in capitals": (
        "t.csv",
        table([{**row, "split": row["split"].title() + " "} for row in ROWS]),
        (),
    ),
}


@pytest.mark.parametrize(("name", "content", "options"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_anybody_would_expect_to_be_read(
    name: str,
    content: str | bytes,
    options: tuple[str, ...],
    parser: ArgumentParser,
    words: Callable[..., list[str]],
) -> None:
    reference = read(parser, words("reference.csv", table())).data.load(0)
    assert read(parser, words(name, content, *options)).data.load(0) == reference


def test_what_may_not_be_meant_is_said(parser: ArgumentParser, words: Callable[..., list[str]]) -> None:
    def told(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
        return iter(said_of(rows, parser, words))

    assert "warning: client ids that differ by case or spaces alone: 'ONE-A', 'one-a'" in told(
        small_rows(("one-a", "ONE-A"))
    )
    assert "warning: 'nan' may stand for no client; it is one" in told(small_rows(("one-a", "nan")))
    assert "48 examples with a text that the same client has before" in told([*ROWS, *ROWS])
    assert "warning: 1 label seen once: '1'" in told(but(label=1))
    huge = but(text="good " * 100_000)
    assert [line for line in told(huge) if line.startswith("warning")] == []
