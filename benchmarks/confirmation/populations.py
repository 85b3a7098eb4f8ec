"""Populations that no rule or constant was chosen on, as settings of fedpl and tables for them.

Requests are those of CLINC150 (Larson et al., 2019) that are in scope: the ten domains are the classes, but
where it says otherwise. Sentences are those of CR, MPQA, MR and SUBJ: the classes are the corpus and its
label, eight of them. Each seed has a third of the rows to itself, so that no two seeds share an example of
training, validation or test.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.domains import clinc
from benchmarks.groups.populations import rows_of
from fedpl.data.duplicates import normalise
from fedpl.files import write_atomically
from fedpl.randomness import derive_seed

SEEDS = (0, 1, 2)
SPLITTING = {"validation": 0.2, "test": 0.5, "max_train": 32, "max_validation": 40, "max_test": 120}

Row = dict[str, str]
Settings = Mapping[str, object]


class Population(NamedTuple):
    """Clients.

    Attributes:
        settings: Of fedpl, by dotted name.
        deal: A table's rows of a seed's; None: as they are.
        groups: Whether averaging inside the true groups differs from averaging all, and from training alone.
        models: How many models IFCA is told to have: the true number of groups, 2 where there are none.
    """

    settings: Settings
    deal: Callable[[Sequence[Row], np.random.Generator], Iterator[Row]] | None = None
    groups: bool = False
    models: int = 2

    @property
    def named(self) -> bool:
        """Whether the data names groups at all."""
        return bool({"data.convention", "data.columns.group"} & self.settings.keys())


def write_table(population: str, seed: int, folder: Path, texts: str = "requests") -> Path:
    """The rows of a population's seed as JSON lines."""
    own = [
        row
        for row in TEXTS[texts]()
        if derive_seed(0, "confirmation", client=normalise(row["text"])) % len(SEEDS) == SEEDS.index(seed)
    ]
    deal = populations(texts)[population].deal
    if deal is not None:
        own = list(deal(own, np.random.default_rng(derive_seed(seed, population))))
    path = folder / "rows.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in own).encode())
    return path


def _requests() -> Iterator[Row]:
    return ({"text": r["text"], "label": r["domain"], "intent": r["intent"]} for r in clinc())


def _sentences() -> Iterator[Row]:
    rows = rows_of("sentconv_tasks")
    wanted = (row for row in rows if row["task"] in ("CR", "MPQA", "MR", "SUBJ") and row["text"].strip())
    return ({"text": row["text"], "label": f"{row['task']} {row['label']}"} for row in wanted)


TEXTS: Mapping[str, Callable[[], Iterator[Row]]] = {"requests": _requests, "sentences": _sentences}


def _intents(rows: Sequence[Row], stream: np.random.Generator) -> Iterator[Row]:
    """A client a domain; its fifteen intents have the same fifteen names as those of any other domain."""
    for domain in sorted({row["label"] for row in rows}):
        own = [row for row in rows if row["label"] == domain]
        names = stream.permutation(sorted({row["intent"] for row in own})).tolist()
        for row in own:
            yield {**row, "client": domain, "group": domain, "label": f"{names.index(row['intent']):02}"}


def _of_sizes(
    groups: Sequence[int], train: Sequence[int]
) -> Callable[[Sequence[Row], np.random.Generator], Iterator[Row]]:
    """Groups of so many clients, each with a permutation of the classes of its own; clients of so many
    training rows, and as much of it for validation and test as is usual here."""

    def deal(rows: Sequence[Row], stream: np.random.Generator) -> Iterator[Row]:
        classes = sorted({row["label"] for row in rows})
        owners = [group for group, members in enumerate(groups) for _ in range(members)]
        meant = [dict(zip(classes, stream.permutation(classes).tolist(), strict=True)) for _ in groups]
        order, at = stream.permutation(len(rows)).tolist(), 0
        for client, (group, number) in enumerate(zip(owners, train, strict=True)):
            take = -(-number * 10 // 3)  # of which three tenths are for training
            for place in order[at : at + take]:
                row = rows[place]
                named = {"client": f"client-{client:02}", "group": f"group-{group}"}
                yield {**row, **named, "label": meant[group][row["label"]]}
            at += take

    return deal


def _dealt(clients: int, **more: object) -> Settings:
    return {"data.partition": "fedpl.data.Iid", "data.partition.clients": clients, **more}


def _permuted(groups: int) -> Settings:
    return {"data.convention": "fedpl.data.Permutation", "data.convention.groups": groups}


def _skewed(alpha: float) -> Settings:
    return {
        "data.partition": "fedpl.data.Dirichlet",
        "data.partition.clients": 12,
        "data.partition.alpha": alpha,
        "data.small_clients": "drop",
    }


_GROUPED: Settings = {"data.columns.client": "client", "data.columns.group": "group"}
_SWAPPED: Settings = {
    "data.convention": "fedpl.data.Swap",
    "data.convention.pairs": [["banking", "travel"]],
}
_ROTATED: Settings = {"data.convention": "fedpl.data.Rotation", "data.convention.groups": 3}
_NOISY: Settings = {"data.noise.share": 0.8, "data.noise.clients": 1 / 12}
_SIZES = (8, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512)

POPULATIONS: dict[str, Population] = {
    "one convention": Population(_dealt(12)),
    "unrelated tasks": Population(_GROUPED, _intents),
    "all permuted": Population(_dealt(12, **_permuted(12)), models=12),
    "Dirichlet 0.1": Population(_skewed(0.1)),
    "Dirichlet 0.3": Population(_skewed(0.3)),
    "Dirichlet 1": Population(_skewed(1.0)),
    "two permutations": Population(_dealt(12, **_permuted(2)), groups=True),
    "three rotations": Population(_dealt(12, **_ROTATED), groups=True, models=3),
    "a pair swapped": Population(_dealt(12, **_SWAPPED)),
    "eight pairs": Population(_dealt(16, **_permuted(8)), groups=True, models=8),
    "nine, two and one": Population(_GROUPED, _of_sizes((9, 2, 1), (32,) * 12), groups=True, models=3),
    "sizes 8 to 512": Population(
        {**_GROUPED, "data.splitting.max_train": 512},
        _of_sizes((6, 6), _SIZES[::2] + _SIZES[1::2]),
        groups=True,
    ),
    "a noisy client": Population(_dealt(12, **_permuted(2), **_NOISY), groups=True),
    "two clients, opposed": Population(_dealt(2, **_permuted(2)), models=2),
    "two clients, alike": Population(_dealt(2)),
    "six clients": Population(_dealt(6, **_permuted(2)), groups=True),
    "48 clients": Population(_dealt(48, **_permuted(4)), groups=True, models=4),
    "200 clients": Population(_dealt(200, **_permuted(4)), groups=True, models=4),
}

# Many clients without anything in common, on sentences alone: the study of random vectors asked for them.
STRANGERS = {
    f"{clients} permuted": Population(_dealt(clients, **_permuted(clients)), models=clients)
    for clients in (48, 100)
}


def populations(texts: str) -> Mapping[str, Population]:
    """Those of requests, or of sentences, which have no tasks without a class in common."""
    if texts == "requests":
        return POPULATIONS
    swapped = {**POPULATIONS["a pair swapped"].settings, "data.convention.pairs": [["CR 0", "SUBJ 0"]]}
    own = POPULATIONS | STRANGERS | {"a pair swapped": Population(swapped)}
    return {name: population for name, population in own.items() if name != "unrelated tasks"}


# Looked at when `fedbip_h` was made: the first round of this study (results/confirmation-first.json) ran on
# them, and by what it showed the rule was made anew. Their other seeds share no example with these.
USED = {("requests", population, 0) for population in POPULATIONS} | {
    ("requests", "one convention", 1),
    ("requests", "unrelated tasks", 1),
}
