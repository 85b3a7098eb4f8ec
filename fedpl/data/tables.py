"""Clients from a table with columns for client and text and label, or prompt and answer: files or the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpl.data.cells import check_columns
from fedpl.data.columns import Columns
from fedpl.data.conventions import AsWritten, Convention, LabelNoise
from fedpl.data.federating import Tabular
from fedpl.data.files import files_of, kind_of, path_problems, refuse_twice
from fedpl.data.partition import ByColumn, Partition
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

    JSON is one object a line, or one array of objects.

    Attributes:
        paths: Files with the same columns, folders of such files or patterns (``tenants/*.csv``); their rows
            are concatenated.
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

    def problems(self) -> Sequence[str]:
        found = [*super().problems(), *self._format.problems()]
        if self.columns.by_subset:
            found.append("data.columns.split: @subset is for fedpl.data.HubText; name a column")
        if not self.paths:
            found.append("data.paths: name at least one file")
        return found + [line for path in self.paths for line in path_problems(path)]

    def load(self, seed: int, known: tuple[str, ...] | None = None) -> FederatedData:
        """Read the data and split it.

        Args:
            seed: The same seed gives the same splits.
            known: The classes, where they are those of a run.
        """
        tables = [self._read(file) for path in self.paths for file in files_of(path)]
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
        return table


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

    def problems(self) -> Sequence[str]:
        found = [*super().problems()]
        if self.columns.by_file:
            found.append("data.columns.client: @file is for fedpl.data.TextFiles; name a column")
        return found + ([] if self.path else ["data.path: name a dataset"])

    def load(self, seed: int) -> FederatedData:
        subsets = self.subset.split("+") if self.columns.by_subset else [self.subset]
        return self.federate([self._read(subset.strip()) for subset in subsets], seed)

    def _read(self, subset: str) -> Table:
        try:
            found = datasets.load_dataset(self.path, self.name, split=subset)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"data.path: cannot load dataset '{self.path}': {reason}") from error
        path = f"{self.path} ({subset})" if self.columns.by_subset else self.path
        table = Table(path, found.column_names, (), range(1, len(found) + 1))
        check_columns(table, self.wanted)
        rows = found.select_columns(self.wanted).to_list()
        feature = found.features[self.columns.label] if self.columns.classed else None
        for row in rows:
            if isinstance(feature, datasets.ClassLabel):
                label = row[self.columns.label]
                row[self.columns.label] = None if label in (None, -1) else feature.int2str(label)  # -1: none
            if self.columns.by_subset:
                row[self.columns.split] = subset.partition("[")[0]
        return table._replace(rows=rows)
