"""``python -m benchmarks.main_job``: do the server rules find the clients that belong together?

Same clients, same seeds, same steps for every method; θ̄ᵢ and θᵢ on validation (where settings are chosen)
and on test. Finished seeds are kept, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.last_round import last_round
from benchmarks.machine import describe
from fedpl.config import Config
from fedpl.data import Tweets
from fedpl.executors.memo import FirstRoundMemo
from fedpl.files import write_json
from fedpl.records.scores import summarise
from fedpl.rounds.loop import RoundResult
from fedpl.runs.prepared import prepare
from fedpl.runs.sharing import sealed
from fedpl.server import Aggregator, FedBip, Local, TrueGroups, Uniform
from fedpl.tasks.metrics import CLASSIFICATION

RESULTS = Path(__file__).parent / "results" / "main_job.json"
POPULATIONS = {
    "airlines, two conventions (12 clients)": Tweets(),
    "airlines, one convention (6 clients)": Tweets(conventions=1),
    "unrelated topics, one convention (4 clients)": Tweets(
        topics=("coachella", "deflategate", "apple", "selfdriving"), conventions=1
    ),
}
CLIP = FedBip(negatives="clip")
# The rules that are compared; the last one knows the true groups.
METHODS = {
    "local only": Aggregator(weighting=Local()),
    "federated average": Aggregator(weighting=Uniform()),
    "FedBip": Aggregator(),
    "FedBip, negatives clipped": Aggregator(weighting=CLIP),
    "FedBip-L": Aggregator(granularity="block"),
    "FedBip-L, negatives clipped": Aggregator(granularity="block", weighting=CLIP),
    "FedBip-H": Config.of("fedbip_h").aggregator,
    "true groups (upper bound)": Aggregator(weighting=TrueGroups()),
}


def scores(result: RoundResult) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and worst accuracy and mean macro-F1, by split and model."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split in ("validation", "test"):
        found[split] = {}
        for model, values in (("aggregated", result.aggregated[split]), ("tuned", result.tuned(split))):
            summary = summarise(values, CLASSIFICATION)
            found[split][model] = {
                "mean": summary.mean["accuracy"],
                "worst": summary.worst["accuracy"],
                "macro_f1": summary.mean["macro_f1"],
            }
    return found


def run_seed(config: Config, chosen: Sequence[str] | None) -> dict[str, Any]:
    """The methods, all by default, on one population and one seed."""
    prepared = prepare(config)
    prepared = prepared._replace(executor=FirstRoundMemo(prepared.executor, sealed(config)))
    found = {}
    for name in chosen or METHODS:
        last = last_round(prepared, METHODS[name], config.rounds, config.rounds, seed=config.seed)
        found[name] = scores(last)
        print(f"seed {config.seed}  {name:30s} {line(found[name])}", flush=True)
    return found


def line(entry: dict[str, Any]) -> str:
    """Test scores of one method and seed, in a few words."""
    test = entry["test"]
    return "  ".join(f"{m} {100 * test[m]['mean']:.1f} ({100 * test[m]['worst']:.1f})" for m in test)


def table(results: dict[str, Any]) -> str:
    """The short table: test accuracy of θ̄ and θ, mean ± sd over seeds, worst client."""
    lines = []
    for population, seeds in results["populations"].items():
        lines += [f"\n{population}, {len(seeds)} seeds\n"]
        lines += ["| method | aggregated θ̄ | worst client | tuned θ | worst client | macro-F1 of θ̄ |"]
        lines += ["|---|---|---|---|---|---|"]
        for name in next(iter(seeds.values())):
            cells = []
            for model, key in (
                ("aggregated", "mean"),
                ("aggregated", "worst"),
                ("tuned", "mean"),
                ("tuned", "worst"),
                ("aggregated", "macro_f1"),
            ):
                values = 100 * np.array([entry[name]["test"][model][key] for entry in seeds.values()])
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                cells.append(
                    f"{values.mean():.1f} ± {spread:.1f}" if key == "mean" else f"{values.mean():.1f}"
                )
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--populations", nargs="*", choices=list(POPULATIONS), default=list(POPULATIONS))
    parser.add_argument("--methods", nargs="*", help="names of methods; all by default")
    parser.add_argument("--precision", default="auto", help="auto, 32-true or bf16-mixed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {**describe(), "precision": arguments.precision, "populations": {}}
    if arguments.out.is_file():
        results["populations"] = json.loads(arguments.out.read_text())["populations"]
    for population in arguments.populations:
        seeds = results["populations"].setdefault(population, {})
        for seed in range(arguments.seeds):
            if str(seed) not in seeds:
                config = replace(
                    Config(), data=POPULATIONS[population], seed=seed, precision=arguments.precision
                )
                seeds[str(seed)] = run_seed(config, arguments.methods)
                write_json(arguments.out, results)
    print(table(results))


if __name__ == "__main__":
    main()
