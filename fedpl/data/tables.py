"""Clients from a table with a text, a label and a client column: local files or a dataset of the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpl.data.duplicates import near_duplicate_groups
from fedpl.data.records import ClientData, FederatedData, Source, Split
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.randomness import derive_seed

if TYPE_CHECKING:
    import datasets
    import pandas as pd
else:
    datasets, pd = map(deferred, ("datasets", "pandas"))

_SPLITS = ("train", "validation", "test")
_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}
_SPLIT_WORDS = {*_SPLITS, *_ALIASES}
_READERS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class Columns:
    """Names of the table's columns.

    Attributes:
        text: The text to classify.
        label: The class, as a word or a number.
        client: Who the row belongs to.
        split: Holds ``train``, ``validation`` or ``test``; leave empty to split by the fractions below. A
            table with a column ``split`` of such words is refused until that is named, or ``none`` is written
            here.
    """

    text: str = "text"
    label: str = "label"
    client: str = "client"
    split: str = ""

    def names(self) -> list[str]:
        """The columns in use, each once."""
        return list(dict.fromkeys(n for n in (self.text, self.label, self.client, self.declared) if n))

    @property
    def declared(self) -> str:
        """The column that says which row belongs to which split; empty: there is none."""
        return "" if self.split == "none" else self.split


@dataclass(frozen=True)
class Splitting:
    """How rows without a split column are split, client by client.

    Attributes:
        validation: Fraction of a client's rows for validation.
        test: Fraction of a client's rows for the test.
        near_duplicates: Jaccard similarity of three-word shingles from which two texts of a client count as
            one and stay in the same split; 0 switches the check off.
        max_train: Keep at most this many training rows per client, drawn by the seed so that each label keeps
            its share; 0 keeps all.
    """

    validation: float = 0.2
    test: float = 0.2
    near_duplicates: float = 0.5
    max_train: int = 0

    def problems(self) -> list[str]:
        found = []
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 1:
            found.append(
                f"data.splitting: validation and test must be positive and sum to less than 1, "
                f"got {self.validation} and {self.test}"
            )
        if not 0 <= self.near_duplicates <= 1:
            found.append(f"data.splitting.near_duplicates: must lie in [0, 1], got {self.near_duplicates}")
        if self.max_train < 0:
            found.append(f"data.splitting.max_train: must not be negative, got {self.max_train}")
        return found


@dataclass(frozen=True)
class TextFiles(Source):
    """Clients from CSV, TSV, JSON lines or Parquet files (optionally .gz), one row an example.

    Attributes:
        paths: Files with the same columns; their rows are concatenated.
        columns: Names of the columns.
        splitting: How to split when there is no split column.
    """

    paths: tuple[str, ...] = ()
    columns: Columns = Columns()
    splitting: Splitting = Splitting()

    def problems(self) -> Sequence[str]:
        found = self.splitting.problems()
        if not self.paths:
            found.append("data.paths: name at least one file")
        for path in self.paths:
            if not Path(path).is_file():
                found.append(f"data.paths: no such file: {path}")
            elif _kind(path) is None:
                found.append(
                    f"data.paths: {path}: expected one of {', '.join(_READERS)}, optionally with .gz"
                )
        return found

    def load(self, seed: int) -> FederatedData:
        rows: list[dict[str, Any]] = []
        for path in self.paths:
            rows += _read(path, self.columns)
        return federate(rows, self.columns, self.splitting, seed)


@dataclass(frozen=True)
class HubText(Source):
    """Clients from a dataset that ``datasets.load_dataset`` finds: a hub id or a local folder.

    Attributes:
        path: Hub id or folder.
        name: Configuration of the dataset, if it has several.
        subset: The dataset's split to read, for example ``train``; fedpl splits it again per client.
        columns: Names of the columns.
        splitting: How to split when there is no split column.
    """

    path: str = ""
    name: str | None = None
    subset: str = "train"
    columns: Columns = Columns()
    splitting: Splitting = Splitting()

    def problems(self) -> Sequence[str]:
        return self.splitting.problems() + ([] if self.path else ["data.path: name a dataset"])

    def load(self, seed: int) -> FederatedData:
        try:
            table = datasets.load_dataset(self.path, self.name, split=self.subset)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"data.path: cannot load dataset '{self.path}': {reason}") from error
        _check_columns(table.column_names, self.columns, self.path)
        rows = table.select_columns(self.columns.names()).to_list()
        feature = table.features[self.columns.label]
        if isinstance(feature, datasets.ClassLabel):
            for row in rows:
                row[self.columns.label] = feature.int2str(row[self.columns.label])
        return federate(rows, self.columns, self.splitting, seed)


def federate(
    rows: Sequence[Mapping[str, Any]], columns: Columns, splitting: Splitting, seed: int
) -> FederatedData:
    """Group rows by client and split each client's rows; clients and classes in sorted order."""
    if not rows:
        raise UserError("the table has no rows")
    classes = tuple(sorted({str(row[columns.label]) for row in rows}))
    index = {name: i for i, name in enumerate(classes)}
    by_client: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_client.setdefault(str(row[columns.client]), []).append(row)
    clients = []
    for client in sorted(by_client):
        own = by_client[client]
        texts = [str(row[columns.text]) for row in own]
        labels = [index[str(row[columns.label])] for row in own]
        if columns.declared:
            places = _declared_places([str(row[columns.declared]) for row in own], client)
        else:
            places = _drawn_places(texts, splitting, derive_seed(seed, "split", client=client))
        if 0 < splitting.max_train < len(places["train"]):
            stream = np.random.default_rng(derive_seed(seed, "cap", client=client))
            places["train"] = stratified(places["train"], labels, splitting.max_train, stream)
        splits: dict[str, Any] = {
            name: Split(tuple(texts[i] for i in chosen), tuple(labels[i] for i in chosen))
            for name, chosen in places.items()
        }
        clients.append(ClientData(id=client, **splits))
    return FederatedData(tuple(clients), classes)


def stratified(
    places: Sequence[int], labels: Sequence[int], most: int, stream: np.random.Generator
) -> list[int]:
    """So many of the places, drawn so that each label keeps its share; in their order.

    Args:
        places: Where to draw from.
        labels: Of every place there is.
        most: How many to draw.
        stream: Random numbers.
    """
    by_label: dict[int, list[int]] = {}
    for place in stream.permutation(np.array(places)).tolist():
        by_label.setdefault(labels[place], []).append(place)
    # Each label's places stand at even distances from 0 on: the first of all have its share of each, and
    # one of each label where there is room.
    ranks = [(i / len(own), label, place) for label, own in by_label.items() for i, place in enumerate(own)]
    chosen = {place for _, _, place in sorted(ranks)[:most]}
    return [place for place in places if place in chosen]


def _declared_places(names: Sequence[str], client: str) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {split: [] for split in _SPLITS}
    for i, name in enumerate(names):
        split = _ALIASES.get(name, name)
        if split not in places:
            raise UserError(f"client '{client}': split '{name}' is none of {', '.join(_SPLITS)}")
        places[split].append(i)
    return places


def _drawn_places(texts: Sequence[str], splitting: Splitting, seed: int) -> dict[str, list[int]]:
    """Deal groups of near-duplicates out, whole, until test and validation have their fractions."""
    n = len(texts)
    threshold = splitting.near_duplicates
    groups = near_duplicate_groups(texts, threshold) if threshold else np.arange(n)
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(i)
    want = {"test": round(n * splitting.test), "validation": round(n * splitting.validation)}
    places: dict[str, list[int]] = {split: [] for split in _SPLITS}
    for group in np.random.default_rng(seed).permutation(len(members)).tolist():
        split = next((name for name, size in want.items() if len(places[name]) < size), "train")
        places[split] += members[group]
    return places


def _kind(path: str) -> str | None:
    suffixes = [s for s in Path(path).suffixes if s != ".gz"]
    return _READERS.get(suffixes[-1].lower()) if suffixes else None


def _read(path: str, columns: Columns) -> list[dict[str, Any]]:
    try:
        match _kind(path):
            case "csv":
                table = pd.read_csv(path, dtype=str, keep_default_na=False)
            case "tsv":
                table = pd.read_csv(path, dtype=str, keep_default_na=False, sep="\t")
            case "jsonl":
                table = pd.read_json(path, lines=True, dtype=False)
            case _:
                table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    _check_columns(list(table.columns), columns, path)
    if "split" in table.columns and not columns.split and set(map(str, table["split"])) <= _SPLIT_WORDS:
        raise UserError(
            f"{path}: has a column 'split' that nothing uses, so that its test rows would be trained on; "
            f"name it with --data.columns.split split, or split anew with --data.columns.split none"
        )
    table = table[columns.names()]
    missing = table.isna().any(axis=1) | (table == "").any(axis=1)
    if missing.any():
        raise UserError(f"{path}: row {int(missing.argmax()) + 1} has an empty text, label, client or split")
    return table.to_dict("records")


def _check_columns(present: Sequence[str], columns: Columns, where: str) -> None:
    absent = [name for name in columns.names() if name not in present]
    if absent:
        raise UserError(
            f"{where}: no column {', '.join(repr(name) for name in absent)}; it has "
            f"{', '.join(map(str, present))}; name yours with data.columns"
        )
