"""Tables of what methods learn, from ``benchmarks/results``; each says where it was measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import main_job as default_job
from benchmarks.groups import tables
from benchmarks.tuned import CHOICES

__all__ = [
    "ablation",
    "attacks",
    "groups",
    "main_job",
    "measured",
    "methods_table",
    "participation",
    "privacy",
    "tuned",
]
_SHOWN = ("torch", "jax", "flwr-datasets")
FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"


def read(name: str) -> Any:
    """A file of results."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def measured(name: str, part: str = "") -> str:
    """On what, with what and from which commit a file was measured, with a link to it."""
    found = read(name)
    about = found[named(found, part)] if part else found
    machine, versions = about["machine"], about["versions"]
    facts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        *([f"{about['threads']} thread{'s' * (about['threads'] > 1)}"] if "threads" in about else []),
        *([f"precision {about['precision']}"] if isinstance(about.get("precision"), str) else []),
        *(f"{package} {versions[package]}" for package in _SHOWN if package in versions),
        f"commit {about['commit']}",
        f"[{name}](/benchmarks/results/{name})",
    ]
    return f"*{'; '.join(facts)}*"


def named(found: Mapping[str, Any], word: str) -> str:
    """The key that a word means: spaces are written as underscores there."""
    return next(key for key in found if key.replace(" ", "_") == word)


def main_job() -> str:
    """The default job under the server's rules."""
    return default_job.table(read("main_job.json")).strip()


def groups() -> str:
    """The populations under the rules that find groups."""
    return tables.short(read("groups.json"))


def ablation() -> str:
    """What one choice does, on all populations."""
    return tables.ablation(read("groups.json"))


def methods_table() -> str:
    """All presets on the default job."""
    return (FOLDER / "methods.md").read_text(encoding="utf-8").strip()


def tuned() -> str:
    """Methods by their presets and with settings that were searched, each by the model that it is for."""
    before, after = read("methods.json")["methods"], read("tuned.json")["methods"]
    lines = [
        "| method | scored | by its preset | gain over local only | tuned | gain over tuned local only |",
        "|---|---|---|---|---|---|",
    ]
    for name in after:
        model = CHOICES[name].model
        cells = [
            _spread(found[name][model][score], sign)
            for found in (before, after)
            for score, sign in (("accuracy", ""), ("gain", "+"))
        ]
        lines.append(f"| `{name}` | {'θ' if model == 'tuned' else 'θ̄'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def attacks() -> str:
    """Honest clients under attacks."""
    return _conditions(read("attacks.json")["tables"]["attacks"], "hostile")


def privacy() -> str:
    """Clipped and noised task vectors."""
    return _conditions(read("conditions.json")["tables"]["privacy"], "noise · clip, ε after 5 rounds")


def participation() -> str:
    """Absent clients."""
    return _conditions(read("conditions.json")["tables"]["participation"], "clients")


def _spread(value: Mapping[str, float], sign: str) -> str:
    mean = round(100 * value["mean"], 1) + 0.0  # never -0.0
    return f"{mean:{sign}.1f} ± {100 * value['sd']:.1f}"


def _conditions(seeds: Mapping[str, Mapping[str, Any]], head: str) -> str:
    """Test accuracy of θ̄ by condition and rule; the worst client in brackets."""
    keys = [key.split(" | ") for key in dict.fromkeys(key for entry in seeds.values() for key in entry)]
    rules = list(dict.fromkeys(rule for rule, _ in keys))
    lines = [f"| {head} | {' | '.join(rules)} |", "|---" * (len(rules) + 1) + "|"]
    for condition in dict.fromkeys(condition for _, condition in keys):
        cells = [
            _cell([e[k] for e in seeds.values() if (k := f"{rule} | {condition}") in e]) for rule in rules
        ]
        lines.append(f"| {condition} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(entries: Sequence[Mapping[str, Any]]) -> str:
    """Over seeds."""
    if not entries:
        return "–"
    means = 100 * np.array([entry["aggregated"]["mean"] for entry in entries])
    worst = 100 * np.mean([entry["aggregated"]["worst"] for entry in entries])
    spread = f" ± {means.std(ddof=1):.1f}" if len(means) > 1 else ""
    return f"{means.mean():.1f}{spread} ({worst:.1f})"
