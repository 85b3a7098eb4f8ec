"""``python -m benchmarks.halves``: what halves of a client's examples agree on, beside those of others.

Halves of one client and of two clients of one task should agree alike: what one client's have in common
beyond that passes for a task of its own. First round, heads, development seed of CLINC150 (seed 0 of
`benchmarks.confirmation`).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.confirmation.__main__ import SETTINGS, as_words
from benchmarks.confirmation.populations import POPULATIONS, write_table
from benchmarks.machine import describe
from fedpl.cli import make_parser, parse
from fedpl.executors.here import Here
from fedpl.files import write_atomically, write_json
from fedpl.records.centring import Head, head_of
from fedpl.runs.prepared import prepare
from fedpl.training.dealing import two_halves
from fedpl.training.session import Assignment, LocalSession

RESULTS = Path(__file__).parent / "results" / "halves.json"
ASKED = ("200 clients", "48 clients", "two permutations")
DEALT = {"by chance": lambda alike, stream: two_halves(range(len(alike)), stream), "kept": two_halves}


def measured(population: str) -> list[dict[str, Any]]:
    """Mean cosines of halves by how near-duplicates are dealt and how heads are compared."""
    with TemporaryDirectory() as folder:
        table = write_table(population, 0, Path(folder))
        settings = SETTINGS | {"data.paths": [str(table)], **POPULATIONS[population].settings}
        parser = make_parser("python -m benchmarks.halves", "")
        prepared = prepare(parse(parser, ["--method=fedbip_h", *as_words(settings)]))
    assert isinstance(prepared.executor, Here)
    site, census = prepared.executor.site, prepared.executor.join()
    head = head_of(census.layout)
    assert head is not None
    groups = np.array([member.group for member in census.members])
    work = [Assignment(name, census.initial) for name in census.clients]
    found = []
    for dealt, deal in DEALT.items():
        with patch("fedpl.training.partitions.two_halves", deal):
            one, other = (
                np.concatenate([_vectors(site, work[i : i + 32], half) for i in range(0, len(work), 32)])
                for half in (0, 1)
            )
        for compared in ("as they are", "centred"):
            rows = [_compared(head, part, compared == "centred") for part in (one, other)]
            within, same, apart = _means(rows[0] @ rows[1].T, groups[:, None] == groups)
            found.append(
                {
                    "population": population,
                    "near-duplicates": dealt,
                    "heads": compared,
                    "one client": within,
                    "one task": same,
                    "other tasks": apart,
                }
            )
    return found


def _vectors(site: Any, work: Sequence[Assignment], half: int) -> Float[np.ndarray, "clients params"]:
    backend = site.worker.backend
    session = LocalSession(backend, work, 1, half)
    return (backend.partitions.config.objective(session).theta - session.received).numpy()


def _compared(
    head: Head, vectors: Float[np.ndarray, "clients params"], centred: bool
) -> Float[np.ndarray, "clients numbers"]:
    parts = head.centred(vectors) if centred else [vectors[:, part.start : part.stop] for part in head]
    rows = np.concatenate(parts, 1).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _means(cosine: Float[np.ndarray, "n n"], same: Bool[np.ndarray, "n n"]) -> tuple[float, ...]:
    own = np.eye(len(cosine), dtype=bool)
    return tuple(round(float(cosine[which].mean()), 4) for which in (own, same & ~own, ~same))


def page(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)]) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the JSON and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.halves", description=__doc__)
    parser.add_argument("--populations", nargs="*", choices=list(POPULATIONS), default=list(ASKED))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    rows = [row for population in arguments.populations for row in measured(population)]
    write_json(arguments.out, {**describe(), "rows": rows})
    write_atomically(arguments.out.with_suffix(".md"), page(rows).encode())
    print(json.dumps(rows[-1]))


if __name__ == "__main__":
    main()
