"""``python -m benchmarks.rules``: server rules on random task vectors of known structure, without training.

Finished cells are kept, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.rules import level, measures
from benchmarks.rules.picture import draw
from benchmarks.rules.tables import page
from benchmarks.rules.vectors import STRUCTURES
from fedpl.files import write_atomically, write_json

RESULTS = Path(__file__).parents[1] / "results" / "rules.json"
SIZES = (0.2, 0.3, 0.45, 0.6, 0.9)  # of a group's direction, noise being 1
DRAWS = {4: 4, 6: 4, 12: 2, 24: 2, 100: 1, 500: 1}  # of each number of clients

SLOW = ("fedbip_w", "silhouette", "CFL", "clusters")  # with twelve clients alone


def cells() -> Iterator[tuple[str, int, float, str, int]]:
    """Structure, clients, size of signal, kind of vectors, draws."""
    for structure in STRUCTURES:
        yield from ((structure, 12, size, "adapter", DRAWS[12]) for size in SIZES)
        yield structure, 12, 0.45, "head", DRAWS[12]
        yield from ((structure, n, 0.45, "adapter", draws) for n, draws in DRAWS.items() if n != 12)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, write the JSON, the tables and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument("--rules", nargs="*", choices=list(measures.RULES), default=list(measures.RULES))
    parser.add_argument("--clients", nargs="*", type=int, choices=list(DRAWS), default=list(DRAWS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {**describe(), "cells": [], "level": [], "power": []}
    if arguments.out.is_file():
        results |= {
            k: v for k, v in json.loads(arguments.out.read_text()).items() if k in ("cells", "level", "power")
        }
    new = [name for name in level.RULES if all(cell["rule"] != name for cell in results["level"])]
    if new:
        results["level"] += level.levels((6, 12, 24, 100), new)
        results["power"] += level.powers(new)
        write_json(arguments.out, results)
    done = {(c["structure"], c["n"], c["size"], c["kind"], c["rule"]) for c in results["cells"]}
    for structure, n, size, kind, draws in cells():
        if n not in arguments.clients:
            continue
        for rule in arguments.rules:
            if (structure, n, size, kind, rule) in done or (n != 12 and rule in SLOW):
                continue
            runs = [measures.run(structure, n, size, kind, rule, number) for number in range(draws)]
            cell = {"structure": structure, "n": n, "size": size, "kind": kind, "rule": rule, "runs": runs}
            results["cells"].append(cell)
        write_json(arguments.out, results)
        print(structure, n, size, kind, flush=True)
    found = page(results)
    write_atomically(arguments.out.with_suffix(".md"), found.encode())
    draw(results, arguments.out.with_suffix(".png"))
    print(found)


if __name__ == "__main__":
    main()
