"""``python -m benchmarks.groups``: which rule recovers what averaging inside the true groups would gain?

Every rule on the same clients, seeds and steps; θ̄ᵢ and θᵢ on validation (where rules are chosen) and test.
Finished runs are kept, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.groups.populations import POPULATIONS
from benchmarks.groups.rules import RULES
from benchmarks.groups.tables import ablation, short, tables
from benchmarks.last_round import last_round
from benchmarks.machine import describe
from benchmarks.main_job import line, scores
from fedpl.config import Config, with_changes
from fedpl.executors.memo import FirstRoundMemo
from fedpl.files import write_atomically, write_json
from fedpl.runs.prepared import prepare
from fedpl.runs.sharing import sealed

RESULTS = Path(__file__).parents[1] / "results" / "groups.json"
PAGE = """# Which rules find the groups

Written by `python -m benchmarks.groups` from the JSON beside it, which names machine, versions and commit;
the rules are those of `benchmarks/groups/rules.py`, the populations those of `populations.py`. θ̄ is what a
client receives, θ what it makes of it. Scores are accuracies in %, mean ± standard deviation over seeds.

{short}

## One choice at a time

Rules that ran on all populations, on the same seeds: test accuracy of θ̄, weight inside the true groups.

{ablation}

## Everything
{tables}
"""


UPPER = {"lora.layers_to_transform": [4, 5], "client.model_dropout": False}
"""The upper third of the blocks learns: the others' answers are kept, and a run takes a third of the time."""


def run(
    population: str,
    seed: int,
    rules: Sequence[str],
    changes: dict[str, Any],
    found: dict[str, Any],
    save: Any,
) -> None:
    """The rules that are missing in `found`, on one population and seed."""
    missing = [rule for rule in rules if rule not in found]
    if not missing:
        return
    config = with_changes(Config(seed=seed), changes)
    data = POPULATIONS[population](seed)
    prepared = prepare(config, data)
    prepared = prepared._replace(executor=FirstRoundMemo(prepared.executor, sealed(config)))
    groups = tuple(client.group for client in data.clients)
    for rule in missing:
        last = last_round(prepared, RULES[rule], config.rounds, config.rounds, seed=seed)
        same = [[a == b for b in groups] for a in groups]
        inside = float((last.weights.mean(0) * same).sum() / len(groups))
        found[rule] = {**scores(last), "weight_inside_groups": inside}
        save()
        print(f"{population}  seed {seed}  {rule:40s} {line(found[rule])}  inside {inside:.2f}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, write the JSON and the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description=__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--populations", nargs="*", choices=list(POPULATIONS), default=list(POPULATIONS))
    parser.add_argument("--rules", nargs="*", choices=list(RULES), default=list(RULES))
    parser.add_argument("--precision", default="auto", help="auto, 32-true or bf16-mixed")
    parser.add_argument("--upper", action="store_true", help="adapters in the upper two of six blocks")
    parser.add_argument("--out", type=Path, help="groups.json; groups-upper.json with --upper")
    arguments = parser.parse_args(argv)
    if arguments.out is None:
        arguments.out = RESULTS.with_stem("groups-upper") if arguments.upper else RESULTS
    changes = {"precision": arguments.precision, **(UPPER if arguments.upper else {})}
    results: dict[str, Any] = {**describe(), "precision": arguments.precision, "populations": {}}
    if arguments.out.is_file():
        results["populations"] = json.loads(arguments.out.read_text())["populations"]
    for seed in arguments.seeds:
        for population in arguments.populations:
            found = results["populations"].setdefault(population, {}).setdefault(str(seed), {})
            run(
                population,
                seed,
                arguments.rules,
                changes,
                found,
                lambda: write_json(arguments.out, results),
            )
    page = PAGE.format(short=short(results), ablation=ablation(results), tables=tables(results))
    write_atomically(arguments.out.with_suffix(".md"), page.encode())
    print(page)


if __name__ == "__main__":
    main()
