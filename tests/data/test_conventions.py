"""What groups of clients call the classes, and labels that are replaced."""

from collections import Counter
from pathlib import Path

import pytest

from fedpl.data import Columns, Convention, Iid, LabelNoise, Permutation, Rotation, Splitting, Swap, TextFiles
from fedpl.data.conventions import groups_of
from fedpl.errors import UserError
from tests.conftest import write_csv
from tests.data.test_partition import CLASSES, SPLITS, rows_of


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_csv(tmp_path_factory.mktemp("rows") / "t.csv", rows_of(240)))


@pytest.mark.parametrize(
    "convention", [Rotation(3), Permutation(3), Swap((("a", "b"), ("c", "d")))], ids=repr
)
def test_groups_call_the_classes_otherwise_in_every_split(convention: Convention, table: str) -> None:
    plain = TextFiles((table,), partition=Iid(6)).load(0)
    source = TextFiles((table,), partition=Iid(6), convention=convention)
    assert source.problems() == []
    data = source.load(0)
    assert data == source.load(0)
    assert sorted(Counter(client.group for client in data.clients).values()) == [2, 2, 2]
    maps: dict[str, set[tuple[int, int]]] = {}
    for before, now in zip(plain.clients, data.clients, strict=True):
        for split in SPLITS:
            assert getattr(before, split).texts == getattr(now, split).texts
            pairs = zip(getattr(before, split).labels, getattr(now, split).labels, strict=True)
            maps.setdefault(now.group, set()).update(pairs)
    assert {len(found) for found in maps.values()} == {4}  # one name for each class
    assert len({frozenset(found) for found in maps.values()}) == 3
    assert maps["convention-0"] == {(c, c) for c in range(4)}
    assert f"convention: {convention}: groups of 2, 2, 2 clients" in data.notes


def test_what_each_convention_is() -> None:
    assert Rotation(3).maps(CLASSES, 0)[2] == [2, 3, 0, 1]
    assert Swap((("a", "c"),)).maps(CLASSES, 0)[1] == [2, 1, 0, 3]
    assert len({*map(tuple, Permutation(24).maps(CLASSES, 0))}) == 24


def test_groups_do_not_depend_on_the_order_of_clients() -> None:
    names = [f"client-{i}" for i in range(9)]
    assert groups_of(names, 2, 0) == groups_of(names[::-1], 2, 0)
    assert groups_of(names, 2, 0) != groups_of(names, 2, 1)


@pytest.mark.parametrize(
    ("convention", "message"),
    [
        (Rotation(5), "4 classes allow at most 4 different"),
        (Permutation(25), "4 classes allow at most 24 different"),
        (Swap((("a", "x"),)), "no class 'x'; there are 'a', 'b', 'c', 'd'"),
        (Rotation(4), "4 groups for 3 clients"),
    ],
)
def test_conventions_that_cannot_be(convention: Convention, message: str, table: str) -> None:
    with pytest.raises(UserError, match=message):
        TextFiles((table,), partition=Iid(3), convention=convention).load(0)


def test_noise_replaces_its_share_of_the_training_labels_alone(table: str) -> None:
    plain = TextFiles((table,), partition=Iid(4)).load(0)
    data = TextFiles((table,), partition=Iid(4), noise=LabelNoise(0.25, 0.5)).load(0)
    wrong = {}
    for before, now in zip(plain.clients, data.clients, strict=True):
        assert (before.validation, before.test, before.train.texts) == (
            now.validation,
            now.test,
            now.train.texts,
        )
        wrong[now.id] = sum(a != b for a, b in zip(before.train.labels, now.train.labels, strict=True))
    assert sorted(wrong.values()) == [0, 0, 9, 9]  # a quarter of 36
    noisy = ", ".join(f"'{name}'" for name in sorted(wrong) if wrong[name])
    assert f"noise: 25% of the training labels of 2 of 4 clients replaced: {noisy}" in data.notes


def test_noise_on_one_class(tmp_path: Path) -> None:
    rows = [row | {"label": "x"} for row in rows_of(40)]
    source = TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), partition=Iid(2), noise=LabelNoise(0.5))
    with pytest.raises(UserError, match="one class alone"):
        source.load(0)


def test_few_shots_are_so_many_of_each_class(table: str) -> None:
    source = TextFiles((table,), partition=Iid(3), splitting=Splitting(shots=3))
    full = TextFiles((table,), partition=Iid(3)).load(0)
    for client, all_of_it in zip(source.load(0).clients, full.clients, strict=True):
        assert Counter(client.train.labels) == dict.fromkeys(range(4), 3)
        assert {*client.train.texts} < {*all_of_it.train.texts}
        assert (client.validation, client.test) == (all_of_it.validation, all_of_it.test)


def test_a_group_column(tmp_path: Path) -> None:
    rows = [row | {"client": f"c{i % 3}", "kind": "ab"[i % 3 == 0]} for i, row in enumerate(rows_of(90))]
    columns = Columns(group="kind")
    data = TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), columns).load(0)
    assert {client.id: client.group for client in data.clients} == {"c0": "b", "c1": "a", "c2": "a"}
    rows[4] = rows[4] | {"kind": "b"}
    with pytest.raises(UserError, match=r"line 6: client 'c1' has the 'kind' 'b', and 'a' in .*line 3; exp"):
        TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), columns).load(0)
    rows[4] = rows[4] | {"kind": ""}
    with pytest.raises(UserError, match="line 6 has an empty 'kind'"):
        TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), columns).load(0)
