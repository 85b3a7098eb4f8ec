"""Tables of ``benchmarks.rules``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.rules.measures import RULES
from benchmarks.rules.vectors import STRUCTURES

_PAGE = """# Server rules on vectors of known structure

Written by `python -m benchmarks.rules` from the JSON beside it, which names machine, versions and commit.
Random task vectors, no training. A client's noise has length 1, a group's direction the length named (in the
first round; it fades to 0.4 of it in the fifth). Half of the noise stays over the rounds. *head*: 770
numbers; *adapter*: 74k numbers, half of whose noise lies in 64 directions. `groups` is `fedpl.server.Groups`,
`agreement` is `fedpl.server.Agreement`, whose clients report the cosine of two vectors of twice the noise
energy in three rounds; `silhouette` the rule of `fedbip_g`, on whole vectors.

## Groups seen where there are none

Share of draws in which the answer is *groups* (400 draws of the test, 200 from 24 clients on, 10 of the
silhouette); in brackets: *one group*. Where nothing is shared *everyone alone* is right, else *one group*.
Lengths 0.45.

{level}

## Groups seen where there are some

12 clients, five rounds, 60 draws of the test, 10 of the silhouette: share of draws in which groups are seen
(adjusted Rand index).

{power}

## Twelve clients, adapters, length 0.45

Cosine of a client's update with its true direction, mean over clients, rounds and draws; in brackets how many
clients are harmed: their update points less to the truth than their own vector does, by 5 % or more.

{rules}

## Squared error of the update, relative to the client's own vector

The same runs. Any average makes noise smaller, of strangers too: beside the cosines this flatters averaging.

{error}

## Numbers of clients

Adapters, length 0.45: cosine with the truth (own vector's), harmed, adjusted Rand index after the last round,
seconds of the server's step (a warm one, all of it).

`groups`:

{clients}

`agreement`:

{agreement}
"""


_NAMES = {"tested": "`groups`", "agreement": "`agreement`", "silhouette": "`silhouette`"}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def page(results: dict[str, Any]) -> str:
    """The Markdown page."""
    cells = {(c["structure"], c["n"], c["size"], c["kind"], c["rule"]): c["runs"] for c in results["cells"]}
    rules = [rule for rule in RULES if any(key[-1] == rule for key in cells)]

    def mean(key: tuple, name: str) -> float:
        return float(np.mean([run[name] for run in cells[key]]))

    def by_rule(show: Any) -> str:
        chosen = [(s, [(s, 12, 0.45, "adapter", rule) for rule in rules]) for s in STRUCTURES]
        rows = [[s, *(show(key) if key in cells else "–" for key in keys)] for s, keys in chosen]
        return _table(["structure", *rules], rows)

    numbers = sorted({key[1] for key in cells})

    def of_clients(structure: str, n: int, rule: str) -> str:
        key = (structure, n, 0.45, "adapter", rule)
        if key not in cells:
            return "–"
        rand = np.mean([run["last"]["ari"] for run in cells[key]])
        cosine, own, harmed = (mean(key, name) for name in ("cosine", "own_cosine", "harmed"))
        return f"{cosine:.2f} ({own:.2f}), {harmed:.0%}, {rand:.2f}, {mean(key, 'seconds'):.3f} s"

    def by_number(rule: str) -> str:
        rows = [[s, *(of_clients(s, n, rule) for n in numbers)] for s in STRUCTURES]
        return _table(["structure", *(f"n = {n}" for n in numbers)], rows)

    return _PAGE.format(
        level=_level(results["level"]),
        power=_power(results["power"]),
        rules=by_rule(lambda key: f"{mean(key, 'cosine'):.2f} ({mean(key, 'harmed'):.0%})"),
        error=by_rule(lambda key: f"{mean(key, 'error'):.2f}"),
        clients=by_number("groups"),
        agreement=by_number("agreement"),
    )


def _level(found: Sequence[dict[str, Any]]) -> str:
    columns = sorted({(c["n"], c["rounds"]) for c in found})
    rows = []
    for rule in _NAMES:
        for structure, kind in dict.fromkeys((c["structure"], c["kind"]) for c in found):
            own = {
                (c["n"], c["rounds"]): f"{c['groups']:.3f} ({c['one']:.2f})"
                for c in found
                if (c["structure"], c["kind"], c["rule"]) == (structure, kind, rule)
            }
            rows.append([_NAMES[rule], f"{structure}, {kind}", *(own.get(column, "–") for column in columns)])
    return _table(["rule", "vectors", *(f"n = {n}, {t} rounds" for n, t in columns)], rows)


def _power(found: Sequence[dict[str, Any]]) -> str:
    sizes = sorted({c["size"] for c in found})
    rows = []
    for structure, kind in dict.fromkeys((c["structure"], c["kind"]) for c in found):
        for rule in _NAMES:
            own = {
                c["size"]: f"{c['power']:.2f} ({c['ari']:.2f})"
                for c in found
                if (c["structure"], c["kind"], c["rule"]) == (structure, kind, rule)
            }
            rows.append([f"{structure}, {kind}", _NAMES[rule], *(own.get(size, "–") for size in sizes)])
    return _table(["vectors", "rule", *(f"length {size}" for size in sizes)], rows)
