"""Tables of ``benchmarks.groups``: scores over seeds, and how much of the groups' gain a rule recovers."""

from typing import Any

import numpy as np


def _values(seeds: dict[str, Any], rule: str, split: str, model: str) -> np.ndarray:
    return 100 * np.array([entry[rule][split][model]["mean"] for entry in seeds.values() if rule in entry])


def tables(results: dict[str, Any]) -> str:
    """One Markdown table per population: accuracy of θ̄ and θ, mean ± sd over seeds, recovered share."""
    lines = []
    for population, seeds in results["populations"].items():
        rules = list(dict.fromkeys(rule for entry in seeds.values() for rule in entry))
        lines += [f"\n{population}, {len(seeds)} seeds\n"]
        lines += ["| rule | validation θ̄ | test θ̄ | test θ | of the groups' gain, test θ̄ | weight inside |"]
        lines += ["|---|---|---|---|---|---|"]
        ends = ("local only", "true groups")
        low, high = (
            _values(seeds, name, "test", "aggregated").mean() if name in rules else np.nan for name in ends
        )
        for rule in rules:
            cells = []
            for split, model in (("validation", "aggregated"), ("test", "aggregated"), ("test", "tuned")):
                values = _values(seeds, rule, split, model)
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                cells.append(f"{values.mean():.1f} ± {spread:.1f}")
            share = ""
            if high > low:
                gain = _values(seeds, rule, "test", "aggregated").mean() - low
                share = f"{100 * gain / (high - low):.0f} %"
            inside = [entry[rule]["weight_inside_groups"] for entry in seeds.values() if rule in entry]
            lines.append(f"| {rule} | " + " | ".join([*cells, share, f"{np.mean(inside):.2f}"]) + " |")
    return "\n".join(lines)
