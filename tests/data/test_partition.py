"""Made-up clients: whose rows are whose, in what proportions, and what is refused."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpl.data import (
    Columns,
    Dirichlet,
    FederatedData,
    Iid,
    LabelNoise,
    Partition,
    Pathological,
    Rotation,
    Source,
    Splitting,
    Swap,
    TextFiles,
    describe,
)
from fedpl.data.partition import Rows
from fedpl.data.shares import Shares
from fedpl.errors import UserError
from fedpl.settings import build, changed, plain
from tests.conftest import write_csv

CLASSES = ("a", "b", "c", "d")
PARTITIONS = (
    Iid(5),
    Iid(5, "log_normal"),
    Iid(5, "power_law"),
    Dirichlet(5, 1.0),
    Pathological(6, 2),
)
SPLITS = ("train", "validation", "test")


def rows_of(number: int) -> list[dict[str, Any]]:
    """Texts without near-duplicates, classes in turn."""
    stream = np.random.default_rng(3)
    return [
        {"text": " ".join(f"w{word}" for word in stream.integers(0, 9999, 6)), "label": CLASSES[i % 4]}
        for i in range(number)
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_csv(tmp_path_factory.mktemp("rows") / "t.csv", rows_of(240)))


def examples(data: FederatedData) -> list[tuple[str, str]]:
    return [
        (text, data.classes[label])
        for client in data.clients
        for split in SPLITS
        for text, label in zip(getattr(client, split).texts, getattr(client, split).labels, strict=True)
    ]


def bare(labels: Sequence[str], splits: Sequence[str] | None = None) -> Rows:
    """Rows of which no two are alike."""
    empty = [""] * len(labels)
    return Rows([f"text{i}" for i in range(len(labels))], labels, empty, splits or empty)


@pytest.mark.parametrize("partition", PARTITIONS, ids=repr)
def test_every_row_is_one_clients_and_the_seed_decides(partition: Partition, table: str) -> None:
    source = TextFiles((table,), partition=partition)
    assert source.problems() == []
    data = source.load(0)
    assert data.ids == partition.names
    assert sorted(examples(data)) == sorted((row["text"], row["label"]) for row in rows_of(240))
    assert data == source.load(0) != source.load(1)
    assert data.notes[0] in [*describe(data)]  # the first lines of a run
    assert data.notes[0].startswith(f"partition: {partition}: {len(partition.names)} clients with ")
    assert all(len(getattr(client, split)) for client in data.clients for split in SPLITS)


def test_equal_shares_differ_by_one_row() -> None:
    sizes = Counter(Iid(7).owners(bare(["x"] * 100), 0.0, seed=5))
    assert set(sizes.values()) == {14, 15}


def test_sizes_by_a_power_law_and_log_normal() -> None:
    law = Iid(4, "power_law", spread=2.0).shares(1, seed=0)[0]
    assert np.allclose(law[0] / law, [1, 4, 9, 16])
    logs = np.log(Iid(2_000, "log_normal", spread=0.5).shares(1, seed=0)[0])
    # Standard error of a standard deviation: σ / √(2n).
    assert abs(logs.std() - 0.5) < 5 * 0.5 / math.sqrt(2 * 2_000)
    assert np.allclose(Iid(9, "log_normal", spread=0.0).shares(1, seed=0), 1 / 9)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 5.0])
def test_dirichlet_shares_have_its_moments(alpha: float) -> None:
    n, classes = 10, 4_000
    shares = Dirichlet(n, alpha).shares(classes, seed=1)
    assert np.allclose(shares.sum(axis=1), 1)
    # Of Dir(α, …, α) over n: mean 1/n, variance (1/n)(1 − 1/n)/(nα + 1).
    variance = (1 / n) * (1 - 1 / n) / (n * alpha + 1)
    assert np.all(abs(shares.mean(axis=0) - 1 / n) < 5 * math.sqrt(variance / classes))
    fourth = ((shares - 1 / n) ** 4).mean()
    error = math.sqrt((fourth - variance**2) / (classes * n))
    assert abs(((shares - 1 / n) ** 2).mean() - variance) < 6 * error


def test_a_tiny_alpha_gives_each_class_to_one_client() -> None:
    shares = Dirichlet(10, 1e-6).shares(50, seed=0)
    assert np.isfinite(shares).all()
    assert np.allclose(np.sort(shares, axis=1)[:, -1], 1)


def test_dirichlet_rows_follow_the_shares_to_half_a_row() -> None:
    labels = [CLASSES[i % 4] for i in range(4_000)]
    partition = Dirichlet(8, 0.3)
    found = Counter(zip(labels, partition.owners(bare(labels), 0.0, seed=2), strict=True))
    shares = partition.shares(4, seed=2)
    for c, label in enumerate(CLASSES):
        for client, name in enumerate(partition.names):
            # Both ends of a client's stretch are rounded.
            assert abs(found[label, name] - 1_000 * shares[c, client]) <= 1 + 1e-6


def test_a_clients_draws_do_not_depend_on_how_many_there_are() -> None:
    few, many = (Dirichlet(n, 0.5).shares(3, seed=0) for n in (3, 6))
    assert np.allclose(few[:, 1] / few[:, 0], many[:, 1] / many[:, 0])
    few, many = (Pathological(n, 2).shares(4, seed=0) > 0 for n in (3, 6))
    assert np.array_equal(few, many[:, :3])


@pytest.mark.parametrize(("clients", "classes"), [(2, 2), (6, 2), (10, 3), (5, 4), (4, 1)])
def test_pathological_clients_have_their_number_of_classes(clients: int, classes: int) -> None:
    labels = [CLASSES[i % 4] for i in range(400)]
    owners = Pathological(clients, classes).owners(bare(labels), 0.0, seed=7)
    own = {
        name: {label for label, owner in zip(labels, owners, strict=True) if owner == name}
        for name in set(owners)
    }
    assert len(own) == clients
    assert {len(found) for found in own.values()} == {classes}
    held = Counter(label for found in own.values() for label in found)
    assert max(held.values()) - min(held.values()) <= 1
    sizes = Counter(zip(labels, owners, strict=True))
    for label in CLASSES:  # a class is dealt evenly
        parts = [size for (of, _), size in sizes.items() if of == label]
        assert max(parts) - min(parts) <= 1


def test_declared_splits_are_dealt_alike() -> None:
    labels = [CLASSES[i % 4] for i in range(2_000)]
    splits = ["test" if i >= 1_000 else "train" for i in range(2_000)]
    owners = Dirichlet(5, 0.3).owners(bare(labels, splits), 0.0, seed=0)
    times = Counter(zip(labels, owners, splits, strict=True))
    assert all(
        abs(times[label, owner, "train"] - times[label, owner, "test"]) <= 2
        for label in CLASSES
        for owner in set(owners)
    )


def test_near_duplicates_are_one_clients() -> None:
    texts = [f"{prefix} the story number {i} of topic {i}" for i in range(60) for prefix in ("", "rt")]
    rows = Rows(texts, ["x"] * 120, [""] * 120, [""] * 120)
    owners = Iid(5).owners(rows, 0.5, seed=0)
    assert owners[::2] == owners[1::2]
    assert [*Iid(5).owners(rows, 0.0, seed=0)[::2]] != [*Iid(5).owners(rows, 0.0, seed=0)[1::2]]


def test_clients_without_rows_are_named_or_left_out(table: str) -> None:
    source = TextFiles((table,), partition=Dirichlet(12, 0.02))
    with pytest.raises(UserError, match=r"\d of 12 clients without a row of 240: 'client-\d\d'.*fewer"):
        source.load(0)
    dropped = TextFiles((table,), partition=Dirichlet(12, 0.02), small_clients="drop").load(0)
    assert 0 < len(dropped.clients) < 12
    assert any("left out as too small" in note for note in dropped.notes)


def test_one_client_and_rows_of_one_template(table: str, tmp_path: Path) -> None:
    for partition in (Iid(1), Dirichlet(1), Pathological(1, 4)):
        (alone,) = TextFiles((table,), partition=partition).load(0).clients
        assert len(alone.train) + len(alone.validation) + len(alone.test) == 240
    rows = [{"text": "the same words in every row", "label": CLASSES[i % 4]} for i in range(40)]
    path = str(write_csv(tmp_path / "t.csv", rows))
    with pytest.raises(UserError, match=r"1 of 2 clients without a row of 40: 'client-1'.*near_duplicates 0"):
        TextFiles((path,), partition=Iid(2)).load(0)
    apart = TextFiles((path,), partition=Iid(2), splitting=Splitting(near_duplicates=0.0)).load(0)
    assert [len(client.train) for client in apart.clients] == [12, 12]


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        (Pathological(6, 5), "5 a client, but the rows have 4"),
        (Pathological(1, 2), "leave some of 4 classes to nobody; take 2 clients or more"),
        (Pathological(200, 4), "do not suffice for 4 classes a client"),
    ],
)
def test_pathological_that_cannot_be(partition: Partition, message: str, table: str) -> None:
    with pytest.raises(UserError, match=message):
        TextFiles((table,), partition=partition).load(0)


def test_settings_that_do_not_fit(table: str) -> None:
    def found(**settings: Any) -> str:
        return "\n".join(TextFiles((table,), **settings).problems())

    assert "partition.clients: at least 1, got 0" in found(partition=Iid(0))
    assert "alpha: must be positive, got 0.0" in found(partition=Dirichlet(5, 0.0))
    assert "alpha: must be positive, got nan" in found(partition=Dirichlet(5, math.nan))
    assert "spread: must not be negative" in found(partition=Iid(5, spread=-1.0))
    assert "classes: at least 1" in found(partition=Pathological(5, 0))
    assert "columns.client: not read" in found(partition=Iid(5), columns=Columns(client="@file"))
    assert "columns.group: not read" in found(partition=Iid(5), columns=Columns(group="g"))
    assert "true groups of its own" in found(convention=Rotation(), columns=Columns(group="g"))
    assert "groups: at least 2" in found(convention=Rotation(1))
    assert "pairs: expected pairs" in found(convention=Swap())
    assert "noise.share: must lie in [0, 1]" in found(noise=LabelNoise(1.5))
    assert "shots: must not be negative" in found(splitting=Splitting(shots=-1))


def test_dialogues_are_dealt_by_what_needs_no_classes(tmp_path: Path) -> None:
    rows = [{"prompt": row["text"], "answer": f"answer {i}"} for i, row in enumerate(rows_of(60))]
    path = str(write_csv(tmp_path / "t.csv", rows))
    columns = Columns(prompt="prompt", answer="answer")
    data = TextFiles((path,), columns, partition=Iid(3)).load(0)
    assert [len(c.train) + len(c.validation) + len(c.test) for c in data.clients] == [20, 20, 20]
    assert data.notes == (
        "partition: Iid(clients=3, sizes='equal', spread=1.0): 3 clients with 20 rows each",
    )
    settings: tuple[dict[str, Any], ...] = (
        {"partition": Dirichlet()},
        {"partition": Pathological()},
        {"convention": Rotation()},
        {"noise": LabelNoise(0.1)},
        {"splitting": Splitting(shots=1)},
    )
    for one in settings:
        assert [line for line in TextFiles((path,), columns, **one).problems() if "needs classes" in line], (
            one
        )


def test_a_partition_of_ones_own(table: str) -> None:
    class Halves(Shares):
        clients = 2

        def shares(self, classes: int, seed: int) -> np.ndarray:
            return np.full((classes, 2), 0.5)

    data = TextFiles((table,), partition=Halves()).load(0)
    assert data.ids == ("client-0", "client-1")


def test_a_client_column_beside_made_up_clients_is_named(tmp_path: Path) -> None:
    rows = [row | {"client": "x"} for row in rows_of(40)]
    data = TextFiles((str(write_csv(tmp_path / "t.csv", rows)),), partition=Iid(2)).load(0)
    assert "the column 'client' is not read: clients are made up" in data.notes


def test_a_table_without_clients_is_told_of_partitions(table: str) -> None:
    with pytest.raises(UserError, match=r"no column 'client'.*or make clients up with data\.partition"):
        TextFiles((table,)).load(0)


def test_settings_written_and_read_again_give_the_same_clients(table: str) -> None:
    """As resume and compare read them, and sweeps change them."""
    source = TextFiles((table,), partition=Dirichlet(4, 2.0), convention=Swap((("a", "b"),)))
    tree = {"data": plain(source, Source)}
    assert build(Source, tree["data"]) == source
    assert build(Source, tree["data"]).load(3) == source.load(3)
    other = changed(tree, {"data.partition": "fedpl.data.Pathological", "data.partition.classes": 3})
    assert build(Source, other["data"]).partition == Pathological(classes=3)
    assert build(Source, changed(tree, {"data.partition.alpha": 5.0})["data"]).partition == Dirichlet(4, 5.0)
    with pytest.raises(UserError, match=r"data\.partition: 'Dirichlett' is no Partition.*did you mean"):
        build(Source, changed(tree, {"data.partition": "Dirichlett"})["data"], "data")
