"""``python -m benchmarks.conditions``: absent clients, hostile clients and noise, on the default job.

Each table is the same clients and steps under several conditions and server rules, over seeds; validation
is not looked at, nothing is chosen here. Finished runs are kept, so that it goes on where it stopped.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.last_round import last_round
from benchmarks.machine import describe
from fedpl.conditions import Attack, FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.config import Config, with_changes
from fedpl.files import write_json
from fedpl.presets import baseline
from fedpl.records.scores import summarise
from fedpl.runs.prepared import Workshop
from fedpl.server import Aggregator, FedBip
from fedpl.site.privacy import epsilon
from fedpl.tasks.metrics import CLASSIFICATION

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "conditions.json"
NOISE = (0.003, 0.01, 0.03, 0.1)
ATTACKS: tuple[Attack, ...] = ("sign_flip", "scale", "mimic", "align", "collude")
UPPER = (4, 5)


RULES = {
    name: baseline(name).aggregator
    for name in ("local", "fedavg", "fedbip", "fedbip_g", "fedbip_robust", "krum")
}
RULES["fedbip, negatives clipped"] = Aggregator(weighting=FedBip(negatives="clip"))
RULES["fedbip_g, last task vectors of the absent"] = replace(RULES["fedbip_g"], stale_discount=0.5)


@dataclass(frozen=True)
class Case:
    """One line of a table: a server rule under a condition."""

    rule: str
    condition: str
    rounds: int = 5
    participation: ParticipationConfig = ParticipationConfig()
    faults: FaultsConfig = FaultsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    small: bool = False


def participation() -> list[Case]:
    """Half of the clients for twice the rounds is the same work of each client on average."""
    half = ParticipationConfig(fraction=0.5)
    rules = ("fedavg", "fedbip", "fedbip_g")
    cases = [Case(rule, "all clients, 5 rounds") for rule in rules]
    cases += [Case(rule, "half of them, 10 rounds", 10, half) for rule in rules]
    return [*cases, Case("fedbip_g, last task vectors of the absent", "half of them, 10 rounds", 10, half)]


def attacks() -> list[Case]:
    """Five attacks of one strength; three rounds, upper two blocks, half of the test texts: less work."""
    rules = ("fedavg", "krum", "fedbip", "fedbip, negatives clipped", "fedbip_robust", "fedbip_g")
    cases = [Case(rule, "none", 3, small=True) for rule in rules]
    for attack in ATTACKS:
        for share in (0.2, 0.4):
            faults = FaultsConfig(hostile=share, attack=attack, strength=3.0)
            name = f"{attack}, {share:.0%} hostile"
            cases += [Case(rule, name, 3, faults=faults, small=True) for rule in rules]
    return cases


def privacy() -> list[Case]:
    """Task vectors cut to length 1 and noised; the noise is stated as a multiple of that length."""
    cases = [Case(rule, "no noise") for rule in ("local", "fedavg", "fedbip", "fedbip_g")]
    for noise in NOISE:
        settings = PrivacyConfig(clip=1.0, noise_multiplier=noise)
        spent = epsilon(settings, 5)
        cases += [
            Case(rule, f"noise {noise:g}, ε = {spent:.3g}", privacy=settings)
            for rule in ("fedavg", "fedbip", "fedbip_g")
        ]
    return cases


TABLES: dict[str, Callable[[], list[Case]]] = {
    "participation": participation,
    "attacks": attacks,
    "privacy": privacy,
}


def run(workshop: Workshop, case: Case, seed: int, precision: str) -> dict[str, Any]:
    """Test scores of the honest clients after the last round."""
    conditions = Config(seed=seed, faults=case.faults, privacy=case.privacy)
    changes: dict[str, Any] = {"precision": precision}
    if case.small:
        changes |= {"lora.layers_to_transform": list(UPPER), "data.test_examples": 40}
    config = with_changes(conditions, changes)
    prepared = workshop.prepare(config)
    last = last_round(
        prepared,
        RULES[case.rule],
        case.rounds,
        seed=seed,
        participation=case.participation,
    )
    found = {}
    for model, values in (("aggregated", last.aggregated["test"]), ("tuned", last.tuned("test"))):
        summary = summarise(
            {id: score for id, score in values.items() if id not in prepared.hostile}, CLASSIFICATION
        )
        found[model] = {"mean": summary.mean["accuracy"], "worst": summary.worst["accuracy"]}
    return found


def table(cases: Sequence[Case], seeds: dict[str, dict[str, Any]]) -> str:
    """Test accuracy of honest clients, mean ± sd over seeds, worst client."""
    lines = ["| condition | rule | seeds | θ̄ | worst | θ | worst |", "|---|---|---|---|---|---|---|"]
    for case in cases:
        entries = [entry[_key(case)] for entry in seeds.values() if _key(case) in entry]
        if not entries:
            continue
        cells = []
        for model in ("aggregated", "tuned"):
            mean = 100 * np.array([entry[model]["mean"] for entry in entries])
            spread = f" ± {mean.std(ddof=1):.1f}" if len(mean) > 1 else ""
            worst = 100 * np.mean([entry[model]["worst"] for entry in entries])
            cells += [f"{mean.mean():.1f}{spread}", f"{worst:.1f}"]
        lines.append(f"| {case.condition} | {case.rule} | {len(entries)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _key(case: Case) -> str:
    return f"{case.rule} | {case.condition}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, write the JSON, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conditions", description=__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--tables", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--precision", default="auto", help="auto, 32-true or bf16-mixed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {**describe(), "precision": arguments.precision, "tables": {}}
    if arguments.out.is_file():
        results["tables"] = json.loads(arguments.out.read_text())["tables"]
    workshop = Workshop()
    for name in arguments.tables:
        cases = TABLES[name]()
        seeds = results["tables"].setdefault(name, {})
        for seed in arguments.seeds:
            found = seeds.setdefault(str(seed), {})
            for case in cases:
                if _key(case) not in found:
                    found[_key(case)] = run(workshop, case, seed, arguments.precision)
                    write_json(arguments.out, results)
                    print(
                        f"{name}  seed {seed}  {_key(case):60s} {json.dumps(found[_key(case)])}", flush=True
                    )
        print(f"\n{name}\n\n{table(cases, seeds)}\n", flush=True)


if __name__ == "__main__":
    main()
