"""Clients from a table with columns for client and text or image and label, or prompt and answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.data.cells import check_columns, word
from fedpl.data.columns import Columns
from fedpl.data.conventions import AsWritten, Convention, LabelNoise
from fedpl.data.federating import Tabular
from fedpl.data.files import files_of, kind_of, path_problems, refuse_twice
from fedpl.data.held import Cells
from fedpl.data.partition import ByColumn, Partition
from fedpl.data.pictures import FilePicture, Picture, RowPicture, known
from fedpl.data.reading import Format, Table, read_table
from fedpl.data.records import FederatedData
from fedpl.data.splitting import SmallClients, Splitting, split_of
from fedpl.deferred import deferred
from fedpl.errors import UserError

if TYPE_CHECKING:
    import datasets
else:
    datasets = deferred("datasets")


@dataclass(frozen=True)
class TextFiles(Tabular):
    """Clients from CSV, TSV, JSON, Parquet, Arrow or Feather files (optionally .gz), one row an example.

    JSON is one object a line, or one array of objects. Rows are texts, or name the files of images
    (``columns.image``).

    Attributes:
        paths: Files with the same columns, folders of such files or patterns (``tenants/*.csv``); their rows
            are concatenated.
        test_paths: Likewise, files whose rows are all for the test; those of ``paths`` are for training and
            validation then.
        columns: Names of the columns.
        splitting: How to split when there is no split column.
        min_examples: Rows that a client needs at least, beside one for each split.
        small_clients: What becomes of clients with fewer: error refuses the data and names them; drop leaves
            them out; train_only trains them (on all their rows, unless their split is declared) and does not
            score them.
        partition: Whose a row is: as the client column says, or dealt to made-up clients (Iid, Dirichlet,
            Pathological).
        convention: What groups of clients call the classes: as written (AsWritten), Rotation, Permutation,
            Swap; the groups are their true groups.
        noise: Training labels that are replaced by others.
        separator: The character between the columns of CSV; empty: a comma, in .tsv a tab.
        encoding: Of text files: utf-8, latin-1, cp1252, ...
    """

    paths: tuple[str, ...] = ()
    columns: Columns = Columns()
    splitting: Splitting = Splitting()
    min_examples: int = 1
    small_clients: SmallClients = "error"
    partition: Partition = ByColumn()
    convention: Convention = AsWritten()
    noise: LabelNoise = LabelNoise()
    separator: str = ""
    encoding: str = "utf-8"
    test_paths: tuple[str, ...] = ()

    def problems(self) -> Sequence[str]:
        found = [*super().problems(), *self._format.problems()]
        if self.columns.by_subset:
            found.append("data.columns.split: @subset is for fedpl.data.HubText; name a column")
        if not self.paths:
            found.append("data.paths: name at least one file")
        if self.test_paths and self.columns.declared:
            found.append("data.test_paths: data.columns.split says it already; name one or the other")
        named = {"data.paths": self.paths, "data.test_paths": self.test_paths}
        return found + [
            line for name, paths in named.items() for path in paths for line in path_problems(path, name)
        ]

    def load(self, seed: int, known: tuple[str, ...] | None = None) -> FederatedData:
        """Read the data and split it.

        Args:
            seed: The same seed gives the same splits.
            known: The classes, where they are those of a run.
        """
        tables = [self._read(file) for path in self.paths for file in files_of(path)]
        held = [self._read(file) for path in self.test_paths for file in files_of(path)]
        tables += [table._replace(split="test") for table in held]
        refuse_twice([table.path for table in tables if table.rows])
        return self.federate(tables, seed, known)

    @property
    def _format(self) -> Format:
        return Format(self.separator, self.encoding)

    def _read(self, path: str) -> Table:
        table = read_table(path, self.wanted, self._format)
        separator = "," if kind_of(path) in ("csv", "tsv") else None
        check_columns(table, self.wanted, separator)
        words = {str(row.get("split")) for row in table.rows}
        if "split" in table.columns and not self.columns.split and all(map(split_of, words)):
            raise UserError(
                f"{path}: has a column 'split' that nothing uses, so that its test rows would be trained on; "
                f"name it with --data.columns.split split, or split anew with --data.columns.split none"
            )
        return with_files(table, self.columns.image) if self.columns.image else table


def with_files(table: Table, column: str) -> Table:
    """A table in which images stand in place of the paths of their files.

    Args:
        table: The rows; cells that are empty, or several, stay as they are.
        column: Of the paths, which are seen from the table's folder.

    Raises:
        UserError: If there is no such file, with line and column.
    """
    folder, rows = Path(table.path).parent, []
    for i, row in enumerate(table.rows):
        cell: Any = row[column]
        if isinstance(cell, str | int | float) and (name := word(cell)).strip():
            path = folder / name
            if not path.is_file():
                raise UserError(f"{table.at(i)}: {column!r}: no such file: {path}")
            cell = known(FilePicture(name=name, path=str(path)))
        rows.append({**row, column: cell})
    return table._replace(rows=rows)


@dataclass(frozen=True)
class HubText(Tabular):
    """Clients from a dataset that ``datasets.load_dataset`` finds: a hub id or a local folder.

    Attributes:
        path: Hub id or folder.
        name: Configuration of the dataset, if it has several.
        subset: The dataset's split to read, for example ``train``; fedpl splits it again per client. With
            ``columns.split: "@subset"`` it names those to keep as they are: ``train+validation+test``.
        columns: Names of the columns.
        splitting: How to split when there is no split column.
        min_examples: Rows that a client needs at least, beside one for each split.
        small_clients: What becomes of clients with fewer: error refuses the data and names them; drop leaves
            them out; train_only trains them (on all their rows, unless their split is declared) and does not
            score them.
        partition: Whose a row is: as the client column says, or dealt to made-up clients (Iid, Dirichlet,
            Pathological).
        convention: What groups of clients call the classes: as written (AsWritten), Rotation, Permutation,
            Swap; the groups are their true groups.
        noise: Training labels that are replaced by others.
        first: Take so many first rows of a subset and load no more of it than these need (streaming); 0: all.
    """

    path: str = ""
    name: str | None = None
    subset: str = "train"
    columns: Columns = Columns()
    splitting: Splitting = Splitting()
    min_examples: int = 1
    small_clients: SmallClients = "error"
    partition: Partition = ByColumn()
    convention: Convention = AsWritten()
    noise: LabelNoise = LabelNoise()
    first: int = 0

    def problems(self) -> Sequence[str]:
        found = [*super().problems()]
        if self.first < 0:
            found.append(f"data.first: 0 for all rows, or how many, got {self.first}")
        if self.first and "[" in self.subset:
            found.append(f"data.first: data.subset '{self.subset}' takes a part already; use one of the two")
        if self.columns.by_file:
            found.append("data.columns.client: @file is for fedpl.data.TextFiles; name a column")
        return found + ([] if self.path else ["data.path: name a dataset"])

    def load(self, seed: int) -> FederatedData:
        subsets = self.subset.split("+") if self.columns.by_subset else [self.subset]
        data = self.federate([self._read(subset.strip()) for subset in subsets], seed)
        if not self.first:
            return data
        note = f"data.first: of {self.subset} the first {self.first:,} rows at most are read"
        return replace(data, notes=(note, *data.notes))

    def _rows(self, subset: str) -> "datasets.Dataset":
        if not self.first:
            return datasets.load_dataset(self.path, self.name, split=subset)
        stream = datasets.load_dataset(self.path, self.name, split=subset, streaming=True)
        if isinstance((stream.features or {}).get(self.columns.image), datasets.Image):
            stream = stream.cast_column(self.columns.image, datasets.Image(decode=False))
        rows = list(islice(stream, self.first))  # its own `take` opens the next file, too
        return datasets.Dataset.from_list(rows, features=stream.features)

    def _read(self, subset: str) -> Table:
        try:
            found = self._rows(subset)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"data.path: cannot load dataset '{self.path}': {reason}") from error
        path = f"{self.path} ({subset})" if self.columns.by_subset else self.path
        table = Table(path, found.column_names, (), range(1, len(found) + 1))
        check_columns(table, self.wanted)
        images = self._images(found, path) if self.columns.image else []
        others = found.select_columns([name for name in self.wanted if name != self.columns.image])
        feature = found.features[self.columns.label] if self.columns.classed else None
        rows = Cells()
        for i, row in enumerate(others):
            if images:
                row[self.columns.image] = images[i]
            if isinstance(feature, datasets.ClassLabel):
                label = row[self.columns.label]
                row[self.columns.label] = None if label in (None, -1) else feature.int2str(label)  # -1: none
            if self.columns.by_subset:
                row[self.columns.split] = subset.partition("[")[0]
            rows.append(row)
        return table._replace(rows=rows)

    def _images(self, found: "datasets.Dataset", path: str) -> list[Picture | None]:
        """The images of all rows, not decoded and not held; None where a cell is empty."""
        column = self.columns.image
        if not isinstance(found.features[column], datasets.Image):
            raise UserError(
                f"{path}: {column!r} holds {found.features[column]}, expected images; give the dataset an "
                f"Image feature, or list the files in a table for fedpl.data.TextFiles"
            )
        rows = found.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        cells = (row[column] for row in rows)
        return [
            None
            if cell is None
            else known(RowPicture(name=f"{path}: row {i}", rows=rows, row=i - 1, column=column))
            for i, cell in enumerate(cells, start=1)
        ]
