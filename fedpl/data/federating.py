"""From rows of tables to clients: whose they are, how they are split, what is done to their labels."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from fedpl.data.caps import few_shot, stratified
from fedpl.data.cells import check_cells, word
from fedpl.data.columns import Columns
from fedpl.data.conventions import Convention, LabelNoise, groups_of
from fedpl.data.dialogues import Example, check_rows, dialogues, example
from fedpl.data.files import refuse_one_name, stem_of
from fedpl.data.labels import check_classes, check_declared, check_labels
from fedpl.data.moments import moment, refuse_mixed
from fedpl.data.partition import Partition, Rows, refuse_empty
from fedpl.data.reading import Table
from fedpl.data.records import ClientData, FederatedData, Images, Pairs, Rated, Source, Split
from fedpl.data.splitting import (
    Dealt,
    SmallClients,
    Splitting,
    beside,
    declared,
    drawn,
    settled,
    uneven,
)
from fedpl.data.wording import counted, readable, some
from fedpl.errors import UserError
from fedpl.randomness import derive_seed


class Tabular(Source):
    """A source whose rows stand in tables; implementations have these settings.

    Attributes:
        columns: Names of the columns.
        splitting: How to split when there is no split column.
        min_examples: Rows that a client needs at least, beside one for each split.
        small_clients: What becomes of clients with fewer.
        partition: Whose a row is.
        convention: What groups of clients call the classes.
        noise: Training labels that are replaced.
    """

    columns: Columns
    splitting: Splitting
    min_examples: int
    small_clients: SmallClients
    partition: Partition
    convention: Convention
    noise: LabelNoise

    @property
    def wanted(self) -> list[str]:
        """The columns in use."""
        return self.columns.names(self.partition.natural)

    def problems(self) -> Sequence[str]:
        found = [*self.splitting.problems(), *self.columns.problems(), *self.partition.problems()]
        found += [*self.convention.problems(), *self.noise.problems()]
        if self.min_examples < 1:
            found.append(f"data.min_examples: at least 1, got {self.min_examples}")
        name = type(self.partition).__name__
        if not self.partition.natural:
            made_up = f"not read where clients are made up (data.partition: {name}); leave it out"
            if self.columns.client != Columns.client:
                found.append(f"data.columns.client: {made_up}")
            if self.columns.group:
                found.append(f"data.columns.group: {made_up}")
        if self.columns.group and not self.convention.plain:
            found.append(
                "data.columns.group: data.convention has true groups of its own; name one or the other"
            )
        if not self.columns.classed:
            needing = {
                f"data.partition: {name}": self.partition.labelled,
                f"data.convention: {type(self.convention).__name__}": not self.convention.plain,
                "data.noise": self.noise.share > 0,
                "data.splitting.shots": self.splitting.shots > 0,
            }
            found += [
                f"{what}: needs classes, and rows with prompts, messages or numbers have none; leave it out"
                for what, used in needing.items()
                if used
            ]
        return found

    def federate(
        self, tables: Sequence[Table], seed: int, known: tuple[str, ...] | None = None
    ) -> FederatedData:
        """Clients from tables; clients and classes in sorted order.

        Args:
            tables: The rows.
            seed: Of the splits.
            known: The classes, where they are those of a run; None: the labels that there are.

        Raises:
            UserError: If cells are empty, labels cannot be meant, or clients are too small.
        """
        columns = self.columns
        for table in tables:
            check_cells(table, self.wanted, columns.lists)
        if columns.classed and known is None:
            check_labels(tables, columns.label)
        else:
            check_rows(tables)
            if columns.classed and known is not None:
                check_classes(tables, columns.label, known)
        if self.partition.natural and columns.by_file:
            for split in {table.split for table in tables}:
                refuse_one_name([table.path for table in tables if table.split == split])
        by_client, notes = self._by_client(tables, seed)
        held = any(table.split for table in tables)
        dealt = {client: self._split(by_client[client], client, seed, held) for client in sorted(by_client)}
        dealt, about = settled(dealt, self.min_examples, self.small_clients)
        notes += [*about, *uneven(dealt, self.splitting)]
        if empty := [table.path for table in tables if not table.rows]:
            notes.append(f"{counted(len(empty), 'file')} without rows: {some(empty)}")
        used = [
            (split, by_client[client][place].label)
            for client, own in dealt.items()
            for split, places in own.places.items()
            for place in places
        ]
        if (columns.declared or held) and columns.classed and known is None:
            check_declared(used, tables, columns.label)
        classes = (known or tuple(sorted({label for _, label in used}))) if columns.classed else ()
        maps = self.convention.maps(classes, seed)
        groups = groups_of([*dealt], len(maps), seed)
        noisy = self.noise.noisy([*dealt], seed)
        notes += self.noise.note(noisy, len(dealt))
        if not self.convention.plain:
            sizes = [sum(group == g for group in groups.values()) for g in range(len(maps))]
            notes.append(f"convention: {self.convention}: groups of {', '.join(map(str, sizes))} clients")
        index = {name: i for i, name in enumerate(classes)}
        clients = []
        for client, own in dealt.items():
            rows = by_client[client]
            # -1: in no split, and of no class any more
            labels = [index.get(row.label, -1) for row in rows]
            strata = labels if columns.classed else [row.right for row in rows]
            places = {
                split: self._capped(split, at, strata, client, seed) for split, at in own.places.items()
            }
            splits: dict[str, Any]
            if columns.dialogues:
                splits = {name: dialogues(rows, chosen, client) for name, chosen in places.items()}
            elif columns.value:
                splits = {name: _rated([rows[i] for i in chosen], columns) for name, chosen in places.items()}
            else:
                meant = maps[groups[client]]
                called = {name: tuple(meant[labels[i]] for i in chosen) for name, chosen in places.items()}
                if client in noisy:
                    called["train"] = self.noise.replaced(called["train"], len(classes), seed, client)
                splits = {
                    name: _labelled([rows[i] for i in chosen], called[name], bool(columns.text_pair))
                    for name, chosen in places.items()
                }
            group = rows[0].group if self.convention.plain else f"convention-{groups[client]}"
            clients.append(ClientData(id=client, **splits, group=group))
        return FederatedData(tuple(clients), classes, tuple(notes))

    def _by_client(self, tables: Sequence[Table], seed: int) -> tuple[dict[str, list[Example]], list[str]]:
        """Each client's rows, in the order of the tables, and what is to be said about it."""
        columns, natural = self.columns, self.partition.natural
        rows: list[Example] = []
        named: list[str] = []
        groups: dict[str, tuple[str, str]] = {}
        for table in tables:
            stem = stem_of(table.path)
            for i, row in enumerate(table.rows):
                client = "" if not natural else stem if columns.by_file else word(row[columns.client])
                own = example(row, table.at(i), columns)
                if columns.time:
                    own = own._replace(time=moment(row[columns.time], table.at(i), columns.time))
                rows.append(own._replace(split=table.split) if table.split else own)
                named.append(client)
                group, place = groups.setdefault(client, (rows[-1].group, table.at(i)))
                if group != rows[-1].group:
                    raise UserError(
                        f"{table.at(i)}: client '{readable(client)}' has the {columns.group!r} "
                        f"'{readable(rows[-1].group)}', and '{readable(group)}' in {place}; expected one "
                        f"group per client (data.columns.group)"
                    )
        refuse_mixed([row.time for row in rows if row.time is not None], columns.time)
        labels = [row.label for row in rows]
        looked_at = Rows([row.said for row in rows], labels, named, [row.split for row in rows])
        owners = self.partition.owners(looked_at, self.splitting.near_duplicates, seed)
        if self.small_clients != "drop":
            refuse_empty(self.partition, owners)
        by_client: dict[str, list[Example]] = {name: [] for name in self.partition.names}
        for owner, own in zip(owners, rows, strict=True):
            by_client.setdefault(owner, []).append(own)
        notes = [*self.partition.note(owners, labels)]
        if not natural and any(columns.client in table.columns for table in tables):
            notes.append(f"the column '{columns.client}' is not read: clients are made up")
        return by_client, notes

    def _split(self, rows: Sequence[Example], client: str, seed: int, held: bool) -> Dealt:
        if self.columns.declared:
            return declared([row.split for row in rows])
        stream = derive_seed(seed, "split", client=client)
        said = [row.said for row in rows]
        times = [row.time.value for row in rows if row.time is not None]
        if held:
            return beside(said, [row.split == "test" for row in rows], self.splitting, stream, times)
        return drawn(said, self.splitting, stream, times)

    def _capped(
        self, split: str, places: list[int], labels: Sequence[Hashable], client: str, seed: int
    ) -> list[int]:
        """A client's rows of a split, as few as are asked for."""
        shots, most = self.splitting.shots, self.splitting.most[split]
        if shots and split == "train":
            stream = np.random.default_rng(derive_seed(seed, "shots", client=client))
            places = few_shot(places, labels, shots, stream)
        if 0 < most < len(places):
            stage = "cap" if split == "train" else f"cap {split}"
            stream = np.random.default_rng(derive_seed(seed, stage, client=client))
            places = stratified(places, labels, most, stream)
        return places


def _rated(rows: Sequence[Example], columns: Columns) -> Rated:
    seconds = tuple(row.second for row in rows) if columns.text_pair else ()
    values = tuple(row.value for row in rows)
    return Rated(tuple(row.text for row in rows), (0,) * len(rows), seconds, values)


def _labelled(rows: Sequence[Example], labels: tuple[int, ...], pairs: bool) -> Split:
    texts = tuple(row.text for row in rows)
    if pictures := tuple(row.picture for row in rows if row.picture is not None):
        return Images(texts, labels, pictures)
    return Pairs(texts, labels, tuple(row.second for row in rows)) if pairs else Split(texts, labels)
