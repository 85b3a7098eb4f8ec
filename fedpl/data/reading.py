"""Tables from files: every row as it stands, with the line where it stands."""

import codecs
import csv
import gzip
import io
import sys
import zlib
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fedpl.data.disguises import refuse_disguised
from fedpl.data.files import kind_of
from fedpl.data.held import Cells
from fedpl.data.objects import objects_of
from fedpl.deferred import deferred
from fedpl.errors import UserError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import feather, ipc, parquet
else:
    pyarrow, parquet = map(deferred, ("pyarrow", "pyarrow.parquet"))
    feather, ipc = map(deferred, ("pyarrow.feather", "pyarrow.ipc"))

_TOGETHER = 1000  # rows of an Arrow table that are made Python's at a time
SEPARATORS = {",": "','", ";": "';'", "\t": r"'\t'", "|": "'|'"}


class Table(NamedTuple):
    """Rows with the columns that are in use.

    Attributes:
        path: Where they come from.
        columns: All columns that there are.
        rows: Values by column.
        places: Where each row begins, counted from 1.
        unit: What is counted: lines, where the file has them, or rows.
        split: What all of its rows are for; empty: its cells say it, or they are split.
    """

    path: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    places: Sequence[int]
    unit: str = "row"
    split: str = ""

    def at(self, row: int) -> str:
        """Where a row stands."""
        return f"{self.path}: {self.unit} {self.places[row]}"


class Format(NamedTuple):
    """How files are written.

    Attributes:
        separator: Between the columns of CSV; empty: by the file's ending.
        encoding: Of text files.
    """

    separator: str = ""
    encoding: str = "utf-8"

    def problems(self) -> list[str]:
        found = []
        if self.between and (len(self.between) > 1 or self.between in ('"', "\n", "\r")):
            found.append(f"data.separator: expected one character like ';', got {self.separator!r}")
        try:
            "a".encode(self.encoding)
        except LookupError:
            found.append(f"data.encoding: expected a name like utf-8 or latin-1, got '{self.encoding}'")
        return found

    @property
    def between(self) -> str:
        """The separator; shells pass a tab as two characters."""
        return self.separator.replace(r"\t", "\t")


def read_table(path: str, wanted: Collection[str], how: Format) -> Table:
    """The rows of a file.

    Args:
        path: CSV, TSV, JSON (lines or one array), Parquet, Arrow or Feather, optionally with .gz.
        wanted: Columns in use; the others are dropped, apart from ``split``.
        how: Separator and encoding.

    Raises:
        UserError: If it cannot be read, with the line and what to do.
    """
    kept = {*wanted, "split"}
    try:
        refuse_disguised(path, _head(path), how.encoding)
        match kind_of(path):
            case "json":
                return _json(path, kept, how.encoding)
            case "parquet" | "arrow" as kind:
                return _arrow(path, kept, kind)
            case kind:
                separator = how.between or ("\t" if kind == "tsv" else ",")
                return _separated(path, wanted, kept, separator, how.encoding)
    except UnicodeError as error:
        raise UserError(_not_in(path, how.encoding)) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        raise UserError(f"cannot read {path}: {reason or _broken(error)}") from error


@contextmanager
def _text(path: str, encoding: str) -> Iterator[io.TextIOWrapper]:
    # A byte order mark, which spreadsheets write, is none of the first column's name.
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    with _bytes(path) as raw, io.TextIOWrapper(raw, encoding, newline="") as file:
        yield file


def _bytes(path: str) -> Any:
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else Path(path).open("rb")


def _broken(error: Exception) -> str:
    return f"{str(error).splitlines()[0].rstrip('.')}; it is not whole: fetch or write it again"


def _head(path: str) -> bytes:
    with _bytes(path) as file:
        return bytes(file.read(256))


def _not_in(path: str, encoding: str) -> str:
    """What to say about a file that is written in another encoding."""
    with _bytes(path) as file:
        content = file.read()
    try:
        content.decode(encoding)
        line = 1
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    marked = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    other = "utf-16" if marked else "latin-1" if codecs.lookup(encoding).name == "utf-8" else "utf-8"
    return (
        f"{path}: line {line} is not written in {encoding}; say in what, for example --data.encoding {other}"
    )


def _separated(
    path: str, wanted: Collection[str], kept: Collection[str], separator: str, encoding: str
) -> Table:
    csv.field_size_limit(sys.maxsize)
    columns: list[str] = []
    uses: dict[str, int] = {}
    rows, places = Cells(), array("q")
    with _text(path, encoding) as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        begin = 1
        try:
            for values in reader:
                if values and not columns:
                    columns = values
                    uses = {name: i for i, name in enumerate(columns) if name in kept}
                    if set(wanted) - set(columns):
                        break  # said before rows that do not fit are
                elif values:
                    if len(values) != len(columns):
                        raise UserError(
                            f"{path}: line {begin} has {len(values)} fields, expected {len(columns)} as in "
                            f"the first line; put text that holds {SEPARATORS.get(separator, separator)} or "
                            f"a line break in quotation marks"
                        )
                    rows.append({name: values[i] for name, i in uses.items()})
                    places.append(begin)
                begin = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path}: line {begin}: {error}; a quotation mark inside quoted text is written twice"
            ) from error
    if not columns:
        raise UserError(f"{path}: is empty, expected a first line with the names of the columns")
    return Table(path, columns, rows, places, "line")


def _json(path: str, kept: Collection[str], encoding: str) -> Table:
    with _text(path, encoding) as file:
        unit, values = objects_of(file, path)
        columns: dict[str, None] = {}
        rows, places = Cells(), array("q")
        for place, value in values:
            columns.update(dict.fromkeys(value))
            rows.append({name: item for name, item in value.items() if name in kept})
            places.append(place)
    return Table(path, list(columns), rows, places, unit)


def _arrow(path: str, kept: Collection[str], kind: str) -> Table:
    try:
        with _bytes(path) as file:
            if kind == "parquet":
                content = parquet.ParquetFile(file)
                columns = content.schema_arrow.names
                table = content.read(columns=[name for name in columns if name in kept])
            else:
                table = _ipc(file)
                columns = table.column_names
                table = table.select([place for place, name in enumerate(columns) if name in kept])
            rows = Cells(row for batch in table.to_batches(_TOGETHER) for row in batch.to_pylist())
    except pyarrow.ArrowException as error:
        raise UserError(f"cannot read {path}: {_broken(error)}") from error
    return Table(path, columns, rows, range(1, len(rows) + 1))


def _ipc(file: Any) -> "pyarrow.Table":
    """Feather in both of its versions, and Arrow as a file or, as ``datasets`` writes it, a stream."""
    mark = file.read(4)
    file.seek(0)
    if mark in (b"ARRO", b"FEA1"):
        return feather.read_table(file)
    return ipc.open_stream(file).read_all()
