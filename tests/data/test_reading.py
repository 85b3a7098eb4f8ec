"""Files as people have them: what can be read is read, what cannot is said with its line and the option."""

import gzip
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import ipc

from fedpl.data import Columns, FederatedData, TextFiles, describe
from fedpl.data.reading import Format
from fedpl.errors import UserError
from fedpl.presets import read_yaml
from tests.conftest import small_rows, write_csv

ROWS = small_rows(("one-a", "two-b"))
COLUMNS = Columns(split="split")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> FederatedData:
    return TextFiles((str(write_csv(tmp_path_factory.mktemp("csv") / "t.csv", ROWS)),), COLUMNS).load(0)


def loaded(path: Path, content: str | bytes, **settings: str) -> FederatedData:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = TextFiles((str(path),), COLUMNS, **settings)
    assert source.problems() == []
    return source.load(0)


def refusal(path: Path, content: str | bytes, **settings: str) -> str:
    with pytest.raises(UserError) as refused:
        loaded(path, content, **settings)
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(f"{path}: ")


def csv_text(separator: str = ",") -> str:
    lines = [separator.join(ROWS[0]), *(separator.join(row.values()) for row in ROWS)]
    return "\n".join(lines) + "\n"


def arrow_bytes(stream: bool) -> bytes:
    table, file = pa.Table.from_pylist(ROWS), io.BytesIO()
    with (ipc.new_stream if stream else ipc.new_file)(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("t.csv", csv_text(";"), {"separator": ";"}),
        ("t.csv", csv_text("\t"), {"separator": r"\t"}),
        ("t.tsv", csv_text("\t"), {}),
        ("t.csv", "\ufeff" + csv_text(), {}),
        ("t.csv", csv_text().encode("utf-16"), {"encoding": "utf-16"}),
        ("t.csv", csv_text().replace("\n", "\r\n"), {}),
        ("t.csv", csv_text().replace("\n", "\n\n"), {}),
        ("t.json", json.dumps(ROWS), {}),
        ("t.json", "\ufeff\n" + json.dumps(ROWS, indent=1), {}),
        ("t.jsonl.gz", gzip.compress("\n".join(map(json.dumps, ROWS)).encode()), {}),
        ("t.feather", arrow_bytes(stream=False), {}),
        ("t.arrow", arrow_bytes(stream=False), {}),
        ("t.arrow", arrow_bytes(stream=True), {}),
        ("t.arrow.gz", gzip.compress(arrow_bytes(stream=True)), {}),
        ("T.CSV.GZ", gzip.compress(csv_text().encode()), {}),
    ],
)
def test_what_can_be_read(
    name: str, content: str | bytes, settings: dict[str, str], tmp_path: Path, reference: FederatedData
) -> None:
    assert loaded(tmp_path / name, content, **settings) == reference


def test_accents(tmp_path: Path) -> None:
    text = csv_text().replace("lovely", "charmé")
    path = tmp_path / "t.csv"
    wrong = text.split("charmé")[0].count("\n") + 1
    said = refusal(path, text.encode("latin-1"))
    assert said == f"line {wrong} is not written in utf-8; say in what, for example --data.encoding latin-1"
    found = loaded(path, text.encode("latin-1"), encoding="latin-1")
    assert any("charmé" in one for client in found.clients for one in client.train.texts)
    assert "--data.encoding utf-16" in refusal(path, text.encode("utf-16"))


@pytest.mark.parametrize(("separator", "shown"), [(";", "';'"), ("\t", r"'\t'"), ("|", "'|'")])
def test_another_separator(separator: str, shown: str, tmp_path: Path) -> None:
    for text in (csv_text(separator), csv_text(separator).replace("number", "number, yes,")):
        said = refusal(tmp_path / "t.csv", text)
        assert said.endswith(f"are its columns separated by another character? --data.separator {shown}")


def test_the_line_of_the_file_and_the_column(tmp_path: Path) -> None:
    text = 'text,label,client,split\n"two\nlines",yes,a,train\n\nlater,,a,train\nlast,no,,train\n'
    said = refusal(tmp_path / "t.csv", text)
    assert said.startswith("line 5 has an empty 'label', the first of 2 such cells")
    lines = [*map(json.dumps, ROWS[:2]), "", json.dumps({**ROWS[2], "client": None}), json.dumps(ROWS[3])]
    assert refusal(tmp_path / "t.jsonl", "\n".join(lines)).startswith("line 4 has an empty 'client'")
    lines[3] = json.dumps({key: value for key, value in ROWS[2].items() if key != "text"})
    assert refusal(tmp_path / "t.jsonl", "\n".join(lines)).startswith("line 4 has an empty 'text'")
    pd.DataFrame([*ROWS[:2], {**ROWS[2], "label": None}]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="row 3 has an empty 'label'"):
        TextFiles((str(tmp_path / "t.parquet"),), COLUMNS).load(0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "t.csv",
            csv_text() + "one, two,yes,a,train\n",
            "line 50 has 5 fields, expected 4 as in the first line",
        ),
        ("t.csv", csv_text() + "alone\n", "line 50 has 1 fields, expected 4"),
        ("t.csv", csv_text() + '"never closed,yes,a,train\nx,y,z,test\n', "line 50: unexpected end of data"),
        ("t.csv", csv_text().replace("split", "text", 1), "no column 'split'"),
        ("t.csv", "text,text,label,client,split\n", "has more than one column 'text'"),
        ("t.csv", "", "is empty, expected a first line with the names of the columns"),
        ("t.csv", "text,label,client,split\n", "the table has no rows"),
        ("t.jsonl", "\n\n" + json.dumps(ROWS[0])[:-1], "line 3: Expecting ',' delimiter (column"),
        ("t.json", json.dumps(ROWS, indent=0)[:-2], "line 289: Expecting ',' delimiter"),
        ("t.json", "[1, 2]", "row 1 holds a int, expected an object by column"),
        ("t.jsonl", '"text"\n', "line 1 holds a str, expected an object"),
        ("t.json", " ", "is empty, expected one JSON object a line"),
        ("t.csv.gz", csv_text(), "cannot read"),
        ("t.csv.gz", gzip.compress(csv_text().encode())[:-9], "cannot read"),
        ("t.parquet", b"PAR1", "cannot read"),
        ("t.feather", arrow_bytes(stream=False)[:-9], "cannot read"),
        ("t.arrow", arrow_bytes(stream=True)[:-60], "cannot read"),
        ("t.arrow", b"", "cannot read"),
        ("t.jsonl", json.dumps(ROWS[0]) + "\n" + "[" * 99_999, "line 2 is nested too deep"),
        ("t.jsonl", '{"text": ' + "1" * 5_000 + "}", "line 1: Exceeds the limit"),
        ("t.json", json.dumps([*ROWS, {"text": "\ud83d"}]), r"row 49 holds half of a character, '\ud83d'"),
    ],
)
def test_what_cannot_be_read(name: str, content: str | bytes, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path / name, content)


def test_words_of_spreadsheets_stay_what_they_are(tmp_path: Path) -> None:
    """A reader that guesses would make a missing value of them."""
    text = csv_text().replace(",yes,", ",N/A,").replace("one-a", "NA", 1)
    found = loaded(tmp_path / "t.csv", text)
    assert found.classes == ("N/A", "no")
    assert any("'N/A' may stand for no label" in line for line in describe(found))
    for wrong in ("#N/A", "nan", "NULL"):
        said = refusal(tmp_path / "t.csv", csv_text().replace(",yes,", f",{wrong},"))
        assert f"'label' is '{wrong}', which stands for no label" in said
    rows = [{**row, "label": float("nan") if i == 5 else 1.0} for i, row in enumerate(ROWS)]
    assert "row 6 has an empty 'label'" in refusal(tmp_path / "t.json", json.dumps(rows))


def test_columns_of_dates_and_numbers_stay_what_they_are(tmp_path: Path) -> None:
    """A reader that guesses types made a timestamp of it."""
    rows = [{**row, "date": 1700000000 + i % 2} for i, row in enumerate(ROWS)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = TextFiles((str(path),), Columns(label="date", split="split")).load(0)
    assert found.classes == ("1700000000", "1700000001")


def test_settings_are_checked() -> None:
    assert Format().problems() == Format(r"\t", "latin-1").problems() == []
    for wrong in (Format(";;"), Format('"'), Format("\n")):
        assert wrong.problems()[0].startswith("data.separator: expected one character like ';', got")
    for wrong in (Format(encoding="latin-99"), Format(encoding="base64")):
        assert wrong.problems()[0].startswith("data.encoding: expected a name like utf-8 or latin-1, got")


def test_a_broken_yaml_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: [\n")
    with pytest.raises(UserError, match=r"mine\.yaml: cannot be read as YAML"):
        read_yaml(path)
