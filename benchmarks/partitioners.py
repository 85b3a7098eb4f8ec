"""``python -m benchmarks.partitioners``: our partitions beside those of flwr-datasets.

That package does not fit beside ours: run this in an environment with flwr-datasets, scipy and this folder on
PYTHONPATH; nothing else of ours is needed there. Random streams differ, so what is drawn is compared over
many seeds by two-sample tests (Kolmogorov-Smirnov), one statistic of a whole partition a seed; what is not
drawn is compared row by row, or size by size.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import ks_2samp

from benchmarks.machine import describe
from fedpl.data.partition import ByColumn, Partition, Rows
from fedpl.data.shares import Dirichlet, Iid, Pathological, Shares
from fedpl.deferred import deferred

if TYPE_CHECKING:
    import datasets
    from flwr_datasets import partitioner as theirs
else:
    datasets, theirs = map(deferred, ("datasets", "flwr_datasets.partitioner"))

RESULTS = Path(__file__).parent / "results" / "partitioners.json"
# Ten classes of unequal size, in an order of their own.
SIZES = (400, 370, 340, 310, 280, 250, 220, 190, 160, 130)
CLIENTS = 10
LEVEL = 0.01  # of all tests together


@dataclass(frozen=True)
class Linear(Shares):
    """Client j's share ∝ j + 1: a law that theirs have and ours do not, dealt by ours."""

    clients: int = CLIENTS

    def shares(self, classes: int, seed: int) -> np.ndarray:
        law = np.arange(1, self.clients + 1)
        return np.tile(law / law.sum(), (classes, 1))


def labels(seed: int) -> list[str]:
    """A class for each row, shuffled."""
    own = np.repeat([f"class-{i}" for i in range(len(SIZES))], SIZES)
    return np.random.default_rng(seed).permutation(own).tolist()


def ours(partition: Partition, classes: Sequence[str], seed: int) -> np.ndarray:
    """Rows of each class that each client has [classes, clients]."""
    empty = [""] * len(classes)
    rows = Rows([str(place) for place in range(len(classes))], classes, empty, empty)
    owners = partition.owners(rows, 0.0, seed)
    return counts(classes, enumerate(map(partition.names.index, owners)))


def flower(made: Any, classes: Sequence[str]) -> np.ndarray:
    """The same by a partitioner of theirs; rows that it leaves to nobody are not counted."""
    made.dataset = datasets.Dataset.from_dict({"label": classes, "place": [*range(len(classes))]})
    clients = range(made.num_partitions)
    return counts(
        classes, ((place, client) for client in clients for place in made.load_partition(client)["place"])
    )


def counts(classes: Sequence[str], owners: Iterable[tuple[int, int]]) -> np.ndarray:
    """Rows of each class that each client has [classes, clients], from places of rows and their clients."""
    found = np.zeros((len(SIZES), CLIENTS), np.int64)
    for place, client in owners:
        found[int(classes[place].removeprefix("class-")), client] += 1
    return found


# Of the clients between the first and the last one: theirs round all ends down, so that the first gets a row
# less now and then, and the last at least one of each class.
STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "largest share of a class, mean": lambda n: float((n.max(1) / SIZES).mean()),
    "share of class 0 of client 1": lambda n: float(n[0, 0] / SIZES[0]),
    "classes of a client, mean": lambda n: float((n > 0).sum(0).mean()),
    "rows of the largest client": lambda n: float(n.sum(0).max()),
    "rows of the smallest client": lambda n: float(n.sum(0).min()),
    "χ² of classes × clients": lambda n: _chi_square(n),
}


def _chi_square(n: np.ndarray) -> float:
    expected = n.sum(1, keepdims=True) * n.sum(0, keepdims=True) / n.sum()
    return float((((n - expected) ** 2) / np.maximum(expected, 1e-9)).sum())


def _dirichlet(alpha: float, seed: int) -> Any:
    return theirs.DirichletPartitioner(
        CLIENTS, "label", alpha, min_partition_size=0, self_balancing=False, seed=seed
    )


def drawn(seeds: int) -> Iterator[dict[str, Any]]:
    """What is drawn: a test for each statistic."""
    makers: dict[str, tuple[Partition, Callable[[int], Any]]] = {
        f"Dirichlet, α = {alpha:g}": (Dirichlet(CLIENTS, alpha), partial(_dirichlet, alpha))
        for alpha in (0.1, 0.5, 5.0)
    }
    makers["Iid"] = Iid(CLIENTS), lambda seed: theirs.IidPartitioner(CLIENTS)
    for name, (partition, make) in makers.items():
        own = [ours(partition, labels(seed), seed) for seed in range(seeds)]
        other = [flower(make(seed), labels(seeds + seed)) for seed in range(seeds)]
        for statistic, of in STATISTICS.items():
            one, two = ([of(each[:, 1:-1]) for each in found] for found in (own, other))
            yield {
                "partition": name,
                "statistic": statistic,
                "ours": {"mean": np.mean(one), "sd": np.std(one, ddof=1)},
                "theirs": {"mean": np.mean(two), "sd": np.std(two, ddof=1)},
                "p": float(ks_2samp(one, two).pvalue),
            }


def different(seeds: int) -> dict[str, Any]:
    """What rounding does to the last client: how many of the classes it has under a small α."""
    last: dict[str, list[int]] = {"ours": [], "theirs": []}
    for seed in range(seeds):
        for who, found in (
            ("ours", ours(Dirichlet(CLIENTS, 0.1), labels(seed), seed)),
            ("theirs", flower(_dirichlet(0.1, seed), labels(seed))),
        ):
            last[who].append(int((found[:, -1] > 0).sum()))
    return {who: float(np.mean(numbers)) for who, numbers in last.items()}


def exact(seeds: int) -> Iterator[dict[str, Any]]:
    """What follows from the settings: by how many rows a client's part of a class, or its size, differs."""
    classes = labels(0)
    rows = len(classes)
    logs = Iid(CLIENTS, "log_normal")
    given = np.diff(np.cumsum([0.0, *(logs.shares(1, 0)[0] * rows)]).round()).astype(int).tolist()
    sized: dict[str, tuple[Partition, Any]] = {
        "Iid": (Iid(CLIENTS), theirs.IidPartitioner(CLIENTS)),
        "sizes ∝ 1, 2, 3, …": (Linear(), theirs.LinearPartitioner(CLIENTS)),
        "power law, spread 1": (
            Iid(CLIENTS, "power_law"),
            theirs.IdToSizeFncPartitioner(CLIENTS, lambda place: 1 / place),
        ),
        "log-normal, its sizes given": (logs, theirs.SizePartitioner(given)),
    }
    for name, (partition, made) in sized.items():
        one, two = ours(partition, classes, 0).sum(0), flower(made, classes).sum(0)
        # Whose client gets the remainder of a division differs; theirs give all of it to the last.
        apart = np.abs(np.sort(one) - np.sort(two))
        yield {
            "partition": name,
            "what": "sizes, sorted",
            "rows_apart": int(np.sort(apart)[:-1].max()),
            "rows_apart_of_one_more": int(apart.max()),
        }
    for k in (1, 2, 5):
        yield pathological(k, seeds)
    own = [f"own-{i % 7}" for i in range(rows)]
    natural = theirs.NaturalIdPartitioner("client")
    natural.dataset = datasets.Dataset.from_dict({"client": own, "place": [*range(rows)]})
    found = [""] * rows
    for client in range(natural.num_partitions):
        for place in natural.load_partition(client)["place"]:
            found[place] = natural.partition_id_to_natural_id[client]
    kept = ByColumn().owners(Rows([""] * rows, classes, own, [""] * rows), 0.0, 0)
    different = sum(a != b for a, b in zip(kept, found, strict=True))
    yield {"partition": "by a column", "what": "rows of another client", "rows_apart": different}


def pathological(k: int, seeds: int) -> dict[str, Any]:
    """Which classes a client has is drawn otherwise; how a class is dealt to those who have it is not."""

    @dataclass(frozen=True)
    class Given(Pathological):
        """On the classes that theirs drew."""

        held: Any = None

        def shares(self, classes: int, seed: int) -> np.ndarray:
            parts: np.ndarray = self.held / self.held.sum(axis=1, keepdims=True)
            return parts

    apart, unused = 0, {"ours": 0, "theirs": 0}
    for seed in range(seeds):
        classes = labels(seed)
        with warnings.catch_warnings(action="ignore"):  # of classes that are left out; they are counted here
            made = theirs.PathologicalPartitioner(
                CLIENTS, "label", k, class_assignment_mode="random", seed=seed
            )
            found = flower(made, classes)
        held = found > 0
        drawn_by_us = ours(Pathological(CLIENTS, k), classes, seed)
        if not ((drawn_by_us > 0).sum(0) == k).all() or not (held.sum(0) == k).all():
            raise AssertionError(f"seed {seed}: a client has not {k} classes")
        unused["theirs"] += not held.any(1).all()
        unused["ours"] += not (drawn_by_us > 0).any(1).all()
        used = [place for place in range(len(SIZES)) if held[place].any()]
        left = [label for label in classes if int(label.removeprefix("class-")) in used]
        mine = ours(Given(CLIENTS, k, held[used]), left, seed)
        apart = max(apart, int(np.abs(mine - found).max()))
    shares = {f"{who}_leave_a_class_to_nobody": number / seeds for who, number in unused.items()}
    return {
        "partition": f"Pathological, {k} a client",
        "what": "rows of a class",
        "rows_apart": apart,
    } | shares


def table(found: Mapping[str, Any]) -> str:
    """What was compared, as Markdown."""
    tests = found["drawn"]
    lines = [
        f"{found['seeds']} seeds a side; level {LEVEL / len(tests):.2g} a test, {LEVEL:g} over all.",
        "",
        "| partition | statistic | ours | flwr-datasets | p |",
        "|---|---|---|---|---|",
    ]
    for test in tests:
        one, two = (f"{test[who]['mean']:.3g} ± {test[who]['sd']:.2g}" for who in ("ours", "theirs"))
        lines.append(f"| {test['partition']} | {test['statistic']} | {one} | {two} | {test['p']:.2g} |")
    lines += ["", "| partition | what | rows apart at most |", "|---|---|---|"]
    for each in found["exact"]:
        last = each.get("rows_apart_of_one_more", 0)
        more = f" (one client {last})" if last > each["rows_apart"] else ""
        lines.append(f"| {each['partition']} | {each['what']} | {each['rows_apart']}{more} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, write the JSON, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitioners", description=__doc__)
    parser.add_argument("--seeds", type=int, default=150)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    about = describe()
    about["versions"] |= {name: version(name) for name in ("flwr-datasets", "datasets")}
    datasets.disable_progress_bars()
    found = {
        **about,
        "seeds": arguments.seeds,
        "drawn": [*drawn(arguments.seeds)],
        "classes_of_the_last_client_at_alpha_0.1": different(min(arguments.seeds, 50)),
        "exact": [*exact(min(arguments.seeds, 50))],
    }
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(found))
    worst = min(found["drawn"], key=lambda test: test["p"])
    if worst["p"] < LEVEL / len(found["drawn"]):
        raise SystemExit(f"differs: {worst}")


if __name__ == "__main__":
    main()
