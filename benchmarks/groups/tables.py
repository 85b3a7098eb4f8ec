"""Tables of ``benchmarks.groups``: scores over seeds, and how much of the groups' gain a rule recovers."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.groups.rules import RULES


def _values(seeds: dict[str, Any], rule: str, split: str, model: str) -> np.ndarray:
    return 100 * np.array([entry[rule][split][model]["mean"] for entry in seeds.values() if rule in entry])


def _inside(seeds: dict[str, Any], rule: str) -> list[float]:
    return [entry[rule]["weight_inside_groups"] for entry in seeds.values() if rule in entry]


def _having(seeds: dict[str, Any], rules: Iterable[str]) -> dict[str, Any]:
    """The seeds that all of these rules ran on."""
    return {seed: entry for seed, entry in seeds.items() if set(rules) <= set(entry)}


def tables(results: dict[str, Any]) -> str:
    """One Markdown table per population: accuracy of θ̄ and θ, mean ± sd over seeds, recovered share.

    The share is (rule − local only) / (true groups − local only) over the seeds that all three have.
    """
    lines = []
    for population, seeds in results["populations"].items():
        rules = list(dict.fromkeys(rule for entry in seeds.values() for rule in entry))
        lines += [f"\n{population}, {len(seeds)} seeds\n"]
        lines += ["| rule | seeds | validation θ̄ | test θ̄ | test θ | of the groups' gain | weight inside |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for rule in rules:
            cells = []
            for split, model in (("validation", "aggregated"), ("test", "aggregated"), ("test", "tuned")):
                values = _values(seeds, rule, split, model)
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                cells.append(f"{values.mean():.1f} ± {spread:.1f}")
            inside = _inside(seeds, rule)
            cells = [str(len(inside)), *cells, _share(seeds, rule), f"{np.mean(inside):.2f}"]
            lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


COLUMNS = {
    "local only": "local only",
    "federated average": "federated average",
    "FedBip": "FedBip",
    "Wiener": "`fedbip_w`",
    "clusters, corrected, head": "`fedbip_g`",
    "true groups": "true groups",
}


def short(results: dict[str, Any]) -> str:
    """The short table: test accuracy of θ̄ over the seeds that have all of these rules."""
    lines = ["| clients | seeds | " + " | ".join(COLUMNS.values()) + " | groups' gain: FedBip / `fedbip_g` |"]
    lines.append("|---" * (len(COLUMNS) + 3) + "|")
    for population, seeds in results["populations"].items():
        common = _having(seeds, COLUMNS)
        if not common:
            continue
        cells = []
        for rule in COLUMNS:
            values = _values(common, rule, "test", "aggregated")
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        shares = (_share(common, rule) for rule in ("FedBip", "clusters, corrected, head"))
        lines.append(f"| {population} | {len(common)} | " + " | ".join([*cells, " / ".join(shares)]) + " |")
    return "\n".join(lines)


def ablation(results: dict[str, Any]) -> str:
    """Every rule that ran everywhere, on the seeds that all of these ran on: what one choice does.

    A cell is the test accuracy of θ̄ in %, and behind it the weight inside the true groups.
    """
    populations: dict[str, dict[str, Any]] = results["populations"]
    ran = [{rule for entry in seeds.values() for rule in entry} for seeds in populations.values()]
    rules = [rule for rule in RULES if all(rule in there for there in ran)]
    common = {name: _having(seeds, rules) for name, seeds in populations.items()}
    if not all(common.values()):
        return ""
    heads = [f"{name} (seeds {', '.join(seeds)})" for name, seeds in common.items()]
    lines = ["| rule | " + " | ".join(heads) + " | mean |", "|---" * (len(heads) + 2) + "|"]
    for rule in rules:
        scores = [_values(seeds, rule, "test", "aggregated").mean() for seeds in common.values()]
        inside = [np.mean(_inside(seeds, rule)) for seeds in common.values()]
        cells = [f"{score:.1f} ({weight:.2f})" for score, weight in zip(scores, inside, strict=True)]
        lines.append(f"| {rule} | " + " | ".join(cells) + f" | {np.mean(scores):.1f} |")
    return "\n".join(lines)


def _share(seeds: dict[str, Any], rule: str) -> str:
    """How much of what the true groups gain over local-only training a rule gains, on test data."""
    ends = ("local only", "true groups", rule)
    common = _having(seeds, ends)
    if not common:
        return ""
    low, high, own = (_values(common, name, "test", "aggregated").mean() for name in ends)
    # Where the true groups hardly gain anything a share says nothing.
    return f"{100 * (own - low) / (high - low):.0f} %" if high - low > 1 else "–"
