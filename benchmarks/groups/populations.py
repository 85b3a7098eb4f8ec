"""Client populations with and without groups, from real texts."""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fedpl.data import ClientData, FederatedData, Split, Tweets
from fedpl.data.duplicates import without_near_duplicates
from fedpl.errors import UserError
from fedpl.randomness import derive_seed

TRAIN, VALIDATION, TEST = 32, 40, 120
_NATURAL_TOPICS = ("coachella", "deflategate", "apple", "selfdriving")
_DOMAINS = ("tweets", "products", "movies", "news")
_SIZES = (8, 12, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512)
TASKS = ("MR", "SUBJ", "CR", "MPQA", "TREC", "SST2")


def shared_file(name: str) -> Path:
    """A file of the benchmarks' data.

    Raises:
        UserError: If it is not there.
    """
    folder = Path(os.environ.get("FEDPL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path} is absent: set FEDPL_DATA to the folder of the benchmarks' data")
    return path


def rows_of(name: str) -> list[dict]:
    """The rows of a table of the benchmarks' data."""
    with gzip.open(shared_file(f"{name}.jsonl.gz"), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _deal(pools: dict[str, list[tuple[str, int]]], per_pool: int, flip: bool, seed: int, stage: str) -> tuple:
    """Clients from pools of labelled texts, by label; with `flip` every second names classes anew."""
    clients = []
    for pool, rows in pools.items():
        kept = without_near_duplicates([text for text, _ in rows])
        rows = [rows[i] for i in kept]
        rng = np.random.default_rng(derive_seed(seed, stage, 0, pool))
        order = [rows[i] for i in rng.permutation(len(rows))]
        classes = sorted({label for _, label in order})
        queues = {c: [row for row in order if row[1] == c] for c in classes}
        shares = {c: len(queues[c]) / len(order) for c in classes}
        for number in range(per_pool):
            splits = {}
            for name, size in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
                taken: list[tuple[str, int]] = []
                for c in classes:
                    want = max(round(size * shares[c]), 1)
                    taken += queues[c][:want]
                    queues[c] = queues[c][want:]
                taken = [taken[i] for i in rng.permutation(len(taken))]
                labels = [1 - label if flip and number % 2 else label for _, label in taken]
                splits[name] = Split(tuple(text for text, _ in taken), tuple(labels))
            group = "ab"[number % 2] if flip else pool
            clients.append(ClientData(f"{pool}-{'abcd'[number]}", **splits, group=group))
    return tuple(clients)


def _balanced(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
    counts = [sum(label == c for _, label in rows) for c in (0, 1)]
    seen = [0, 0]
    kept = []
    for text, label in rows:
        seen[label] += 1
        if seen[label] <= min(counts):
            kept.append((text, label))
    return kept


def vader(flip: bool) -> Callable[[int], FederatedData]:
    """Four domains of sentences with human sentiment; two clients each, of two conventions or of one."""

    def load(seed: int) -> FederatedData:
        pools: dict[str, list[tuple[str, int]]] = {domain: [] for domain in _DOMAINS}
        for row in rows_of("vader_hutto2014"):
            if abs(row["rating"]) > 0.5:
                pools[row["domain"]].append((row["text"], int(row["rating"] > 0)))
        balanced = {domain: _balanced(rows)[:3000] for domain, rows in pools.items()}
        return FederatedData(_deal(balanced, 2, flip, seed, "vader"), ("negative", "positive"))

    return load


def tasks(seed: int) -> FederatedData:
    """Six sentence tasks with label sets of their own, two clients each: groups are tasks."""
    pools: dict[str, list[tuple[str, int]]] = {task: [] for task in TASKS}
    for row in rows_of("sentconv_tasks"):
        if row["task"] in pools:
            pools[row["task"]].append((row["text"], row["label"]))
    rng = np.random.default_rng(0)
    some = {task: [rows[i] for i in rng.permutation(len(rows))[:3000]] for task, rows in pools.items()}
    return FederatedData(_deal(some, 2, False, seed, "tasks"), tuple("012345"))


def tweets(seed: int) -> FederatedData:
    """The default job: six airlines, two conventions."""
    return Tweets().load(seed)


def topics(seed: int) -> FederatedData:
    """Four unrelated topics of tweets, one convention: no groups."""
    return Tweets(topics=_NATURAL_TOPICS, conventions=1).load(seed)


def questions(
    conventions: int,
    *,
    sizes: Sequence[int] = (TRAIN,) * 12,
    swapped: bool = False,
    skew: float | None = None,
    noisy: int = 0,
) -> Callable[[int], FederatedData]:
    """Twelve clients with questions of six classes (TREC), in so many permutations of the classes.

    Args:
        conventions: How many.
        sizes: Training examples of each client.
        swapped: The second convention swaps two classes and leaves the others.
        skew: Concentration of the Dirichlet distribution of a client's classes; None: they are those of all.
        noisy: How many clients, the first ones, have four fifths of their training labels drawn anew.
    """

    def load(seed: int) -> FederatedData:
        rows = [(row["text"], row["label"]) for row in rows_of("sentconv_tasks") if row["task"] == "TREC"]
        rows = [rows[i] for i in without_near_duplicates([text for text, _ in rows])]
        stream = np.random.default_rng(derive_seed(seed, "questions", 0, str(conventions)))
        left = stream.permutation(len(rows)).tolist()
        meant = [stream.permutation(6) if conventions > 1 else np.arange(6) for _ in range(conventions)]
        if swapped:
            meant = [np.arange(6), np.array([1, 0, 2, 3, 4, 5])]
        clients = []
        for number, size in enumerate(sizes):
            group = number % conventions
            wanted = None if skew is None else stream.dirichlet([skew] * 6)
            splits = {}
            for name, count in (("train", size), ("validation", 20), ("test", 80)):
                if wanted is None:
                    places = list(range(count))
                else:
                    by_class = {c: [i for i, row in enumerate(left) if rows[row][1] == c] for c in range(6)}
                    drawn = stream.multinomial(count, wanted)
                    places = [i for c, most in enumerate(drawn) for i in by_class[c][:most]]
                taken = [rows[left[i]] for i in places]
                gone = set(places)
                left = [row for i, row in enumerate(left) if i not in gone]
                labels = np.array([meant[group][label] for _, label in taken], int)
                if name == "train" and number < noisy:
                    anew = stream.random(len(labels)) < 0.8
                    labels[anew] = stream.integers(0, 6, int(anew.sum()))
                splits[name] = Split(tuple(text for text, _ in taken), tuple(labels.tolist()))
            clients.append(ClientData(f"client-{number:02}", **splits, group=f"group-{group:02}"))
        return FederatedData(tuple(clients), tuple("012345"))

    return load


POPULATIONS: dict[str, Callable[[int], FederatedData]] = {
    "airlines, two conventions": tweets,
    "domains, two conventions": vader(True),
    "six sentence tasks": tasks,
    "domains, one convention": vader(False),
    "unrelated topics": topics,
    "questions, one convention": questions(1),
    "questions, four permutations": questions(4),
    "questions, all permuted": questions(12),
    "questions, sizes 8 to 512": questions(2, sizes=_SIZES),
    "questions, a noisy client": questions(2, noisy=1),
    "questions, a pair swapped": questions(2, swapped=True),
    "questions, Dirichlet 0.3": questions(1, skew=0.3),
}
