"""``python -m benchmarks.tuned``: methods with settings searched on validation data, by ``fedpl.sweep``.

Every method gets the same six trials on one seed: three learning rates at its preset, then, at the best of
them, three more values of what the method itself leaves to be chosen (of the head's learning rate where it
leaves nothing). Scored is the model the method is for, θ or θ̄, on validation data. The best setting is then
run on seeds that the search has not seen and scored on test data by ``fedpl.compare``.

Three hours of one core. ``--parts search --methods a,b`` and a second process with other methods share the
work; what is finished under ``--out`` is not repeated.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.methods import keep
from fedpl.compare import __main__ as compare
from fedpl.sweep import __main__ as sweep

RATES = (0.001, 0.002, 0.004)
# A seed that no table of results uses.
SEARCH_SEED = 3


class Choice(NamedTuple):
    """What is searched of a method beside the learning rate: a setting, by the score of one of its models."""

    model: str
    setting: str = "client.head_lr"
    values: tuple[Any, ...] = (0.003, 0.03, 0.1)


_OBJECTIVE, _WEIGHTING = "client.objective.init_args", "aggregator.weighting.init_args"
CHOICES = {
    "local": Choice("aggregated"),
    "fedavg": Choice("tuned"),
    "fedprox": Choice("tuned", f"{_OBJECTIVE}.mu", (0.001, 0.01, 1.0)),
    "ditto": Choice("tuned", f"{_OBJECTIVE}.lam", (0.03, 0.1, 0.3)),
    "apfl": Choice("tuned", f"{_OBJECTIVE}.alpha", (0.25, 0.75, 0.9)),
    "fedala": Choice("tuned", f"{_OBJECTIVE}.eta", (10.0, 100.0, 10000.0)),
    "feddpa": Choice("tuned", f"{_OBJECTIVE}.max_share", (0.7, 0.85, 1.0)),
    "ffa_lora": Choice("tuned"),
    "fedper": Choice("aggregated", "aggregator.local_blocks", (1, 2, 4)),
    "fedsa": Choice("aggregated"),
    "fedamp": Choice("aggregated", f"{_OBJECTIVE}.mu", (0.01, 0.1, 10.0)),
    "pfedgraph": Choice("aggregated", f"{_WEIGHTING}.strength", (0.2, 0.4, 1.6)),
    "cfl": Choice("aggregated", f"{_WEIGHTING}.mean_below", (0.3, 0.7, 0.9)),
    "ifca": Choice("aggregated", "aggregator.receive.init_args.models", (3, 4, 6)),
    "clusters": Choice("aggregated", f"{_WEIGHTING}.warmup", (1, 3, 4)),
    "fedbip": Choice("aggregated"),
    "fedbip_l": Choice("aggregated"),
    "fedbip_w": Choice("aggregated", f"{_WEIGHTING}.rank", (2, 3, 6)),
    "fedbip_g": Choice("aggregated", f"{_WEIGHTING}.min_silhouette", (0.1, 0.3, 0.4)),
    "true_groups": Choice("aggregated"),
}


def grid(name: str, metric: str, setting: str, values: Sequence[Any]) -> str:
    """A sweep file over one setting."""
    content = {
        "name": name,
        "program": "fedpl.fit",
        "command": ["${env}", "${interpreter}", "-m", "${program}", "${args}"],
        "method": "grid",
        "metric": {"name": metric, "goal": "maximize"},
        "parameters": {setting: {"values": list(values)}},
    }
    return yaml.safe_dump(content, sort_keys=False)


def run_grid(
    folder: Path, metric: str, setting: str, values: Sequence[Any], argv: list[str]
) -> dict[str, Any]:
    """The best trial of a sweep over one setting; its configuration is ``best.yaml`` in `folder`."""
    file = folder.with_suffix(".yaml")
    file.write_text(grid(folder.name, metric, setting, values), encoding="utf-8")
    sweep.main([str(file), "--out", str(folder), *argv])
    return json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["trials"][0]


def search(method: str, out: Path, argv: list[str]) -> Path:
    """Six trials; the file of the best setting, named like the method."""
    choice = CHOICES[method]
    metric = f"validation/{choice.model}/mean/accuracy"
    common = ["--config", f"configs/method/{method}.yaml", f"--seed={SEARCH_SEED}", *argv]
    folder = out / "search"
    folder.mkdir(parents=True, exist_ok=True)
    rates = folder / f"{method}-rates"
    best = run_grid(rates, metric, "client.lr", RATES, common)
    chosen, rate = rates, f"--client.lr={best['parameters']['client.lr']}"
    own = folder / f"{method}-own"
    other = run_grid(own, metric, choice.setting, choice.values, [*common, rate])
    if other["value"] > best["value"]:
        chosen = own
    tuned = out / "tuned" / f"{method}.yaml"
    tuned.parent.mkdir(exist_ok=True)
    shutil.copyfile(chosen / "best.yaml", tuned)
    return tuned


def found(method: str, out: Path) -> dict[str, Any]:
    """What the search of a method tried, for the results."""
    tried = [
        json.loads((out / "search" / f"{method}-{part}" / "sweep.json").read_text(encoding="utf-8"))
        for part in ("rates", "own")
    ]
    trials = [
        {"parameters": trial["parameters"], "value": trial["value"], "state": trial["state"]}
        for content in tried
        for trial in content["trials"]
    ]
    return {"metric": tried[0]["metric"]["name"], "trials": trials}


def main(argv: Sequence[str] | None = None) -> None:
    """Search, compare, and keep what was searched, the tables and the picture."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuned", description=__doc__)
    parser.add_argument("--methods", default=",".join(CHOICES), help="which methods, separated by commas")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of the comparison")
    parser.add_argument("--out", default="runs/tuned", help="directory of searches and runs")
    parser.add_argument("--parts", default="search,compare", help="search, compare, or both")
    options, rest = parser.parse_known_args(argv)
    out, methods = Path(options.out), options.methods.split(",")
    parts = options.parts.split(",")
    if "search" in parts:
        for method in methods:
            search(method, out, rest)
    if "compare" not in parts:
        return
    files = ",".join(str(out / "tuned" / f"{method}.yaml") for method in methods)
    compare.main(["--methods", files, "--seeds", options.seeds, "--out", str(out / "runs"), *rest])
    searched = {"search_seed": SEARCH_SEED, "searched": {method: found(method, out) for method in methods}}
    keep(out / "runs", "tuned", {"options": rest} | searched)


if __name__ == "__main__":
    main()
