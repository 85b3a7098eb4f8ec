"""Clients from a table with columns for client and text and label, or prompt and answer: files or the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpl.data.columns import Columns
from fedpl.data.dialogues import Example, check_rows, dialogues, example
from fedpl.data.files import files_of, kind_of, path_problems, refuse_one_name, refuse_twice, stem_of
from fedpl.data.labels import check_declared, check_labels
from fedpl.data.reading import Format, Table, check_cells, check_columns, read_table, word
from fedpl.data.records import ClientData, FederatedData, Source, Split
from fedpl.data.splitting import (
    SPLIT_WORDS,
    SmallClients,
    Splitting,
    declared,
    drawn,
    settled,
    stratified,
    uneven,
)
from fedpl.data.wording import counted, some
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.randomness import derive_seed

if TYPE_CHECKING:
    import datasets
else:
    datasets = deferred("datasets")


@dataclass(frozen=True)
class TextFiles(Source):
    """Clients from CSV, TSV, JSON or Parquet files (optionally .gz), one row an example.

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
        separator: The character between the columns of CSV; empty: a comma, in .tsv a tab.
        encoding: Of text files: utf-8, latin-1, cp1252, ...
    """

    paths: tuple[str, ...] = ()
    columns: Columns = Columns()
    splitting: Splitting = Splitting()
    min_examples: int = 1
    small_clients: SmallClients = "error"
    separator: str = ""
    encoding: str = "utf-8"

    def problems(self) -> Sequence[str]:
        found = [*self.splitting.problems(), *self._format.problems(), *_size_problems(self.min_examples)]
        found += self.columns.problems()
        if not self.paths:
            found.append("data.paths: name at least one file")
        return found + [line for path in self.paths for line in path_problems(path)]

    def load(self, seed: int) -> FederatedData:
        tables = [self._read(file) for path in self.paths for file in files_of(path)]
        refuse_twice([table.path for table in tables if table.rows])
        return federate(tables, self.columns, self.splitting, seed, self.min_examples, self.small_clients)

    @property
    def _format(self) -> Format:
        return Format(self.separator, self.encoding)

    def _read(self, path: str) -> Table:
        table = read_table(path, self.columns.names(), self._format)
        separator = "," if kind_of(path) in ("csv", "tsv") else None
        check_columns(table, self.columns.names(), separator)
        words = {str(row.get("split")) for row in table.rows}
        if "split" in table.columns and not self.columns.split and words <= SPLIT_WORDS:
            raise UserError(
                f"{path}: has a column 'split' that nothing uses, so that its test rows would be trained on; "
                f"name it with --data.columns.split split, or split anew with --data.columns.split none"
            )
        return table


@dataclass(frozen=True)
class HubText(Source):
    """Clients from a dataset that ``datasets.load_dataset`` finds: a hub id or a local folder.

    Attributes:
        path: Hub id or folder.
        name: Configuration of the dataset, if it has several.
        subset: The dataset's split to read, for example ``train``; fedpl splits it again per client.
        columns: Names of the columns.
        splitting: How to split when there is no split column.
        min_examples: Rows that a client needs at least, beside one for each split.
        small_clients: What becomes of clients with fewer: error refuses the data and names them; drop leaves
            them out; train_only trains them (on all their rows, unless their split is declared) and does not
            score them.
    """

    path: str = ""
    name: str | None = None
    subset: str = "train"
    columns: Columns = Columns()
    splitting: Splitting = Splitting()
    min_examples: int = 1
    small_clients: SmallClients = "error"

    def problems(self) -> Sequence[str]:
        found = [*self.splitting.problems(), *_size_problems(self.min_examples), *self.columns.problems()]
        if self.columns.by_file:
            found.append("data.columns.client: @file is for fedpl.data.TextFiles; name a column")
        return found + ([] if self.path else ["data.path: name a dataset"])

    def load(self, seed: int) -> FederatedData:
        try:
            found = datasets.load_dataset(self.path, self.name, split=self.subset)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"data.path: cannot load dataset '{self.path}': {reason}") from error
        table = Table(self.path, found.column_names, (), range(1, len(found) + 1))
        check_columns(table, self.columns.names())
        rows = found.select_columns(self.columns.names()).to_list()
        feature = None if self.columns.dialogues else found.features[self.columns.label]
        if isinstance(feature, datasets.ClassLabel):
            for row in rows:
                label = row[self.columns.label]
                row[self.columns.label] = None if label in (None, -1) else feature.int2str(label)  # -1: none
        tables = [table._replace(rows=rows)]
        return federate(tables, self.columns, self.splitting, seed, self.min_examples, self.small_clients)


def federate(
    tables: Sequence[Table],
    columns: Columns,
    splitting: Splitting,
    seed: int,
    min_examples: int = 1,
    small_clients: SmallClients = "error",
) -> FederatedData:
    """Group rows by client and split each client's rows; clients and classes in sorted order.

    Raises:
        UserError: If cells are empty, labels cannot be meant, or clients are too small.
    """
    for table in tables:
        check_cells(table, columns.names(), columns.lists)
    if columns.dialogues:
        check_rows(tables)
    else:
        check_labels(tables, columns.label)
    if columns.by_file:
        refuse_one_name([table.path for table in tables])
    by_client: dict[str, list[Example]] = {}
    for table in tables:
        for i, row in enumerate(table.rows):
            client = stem_of(table.path) if columns.by_file else word(row[columns.client])
            by_client.setdefault(client, []).append(example(row, table.at(i), columns))
    dealt = {
        client: declared([row.split for row in by_client[client]], client)
        if columns.declared
        else drawn(
            [row.text for row in by_client[client]], splitting, derive_seed(seed, "split", client=client)
        )
        for client in sorted(by_client)
    }
    dealt, notes = settled(dealt, min_examples, small_clients)
    notes += uneven(dealt, splitting)
    if empty := [table.path for table in tables if not table.rows]:
        notes.append(f"{counted(len(empty), 'file')} without rows: {some(empty)}")
    used = [
        (split, by_client[client][place].label)
        for client, own in dealt.items()
        for split, places in own.places.items()
        for place in places
    ]
    if columns.declared and not columns.dialogues:
        check_declared(used)
    classes = () if columns.dialogues else tuple(sorted({label for _, label in used}))
    index = {name: i for i, name in enumerate(classes)}
    clients = []
    for client, (_, places, _) in dealt.items():
        rows = by_client[client]
        # -1: in no split, and of no class any more
        labels = [index.get(row.label, -1) for row in rows]
        if 0 < splitting.max_train < len(places["train"]):
            stream = np.random.default_rng(derive_seed(seed, "cap", client=client))
            places = {**places, "train": stratified(places["train"], labels, splitting.max_train, stream)}
        splits: dict[str, Any] = {
            name: dialogues(rows, chosen, client)
            if columns.dialogues
            else Split(tuple(rows[i].text for i in chosen), tuple(labels[i] for i in chosen))
            for name, chosen in places.items()
        }
        clients.append(ClientData(id=client, **splits))
    return FederatedData(tuple(clients), classes, tuple(notes))


def _size_problems(min_examples: int) -> list[str]:
    return [] if min_examples >= 1 else [f"data.min_examples: at least 1, got {min_examples}"]
