"""``python -m benchmarks.onboarding``: what does a newcomer with few examples get from a finished run?

The default job without two airlines, whose four clients (two conventions each) join when it has ended, with
8, 16 or 32 training examples: under FedBip-G from θ₀ and from the nearest clients' aggregates, beside
training alone for as many steps, and beside the one model of plain averaging, as it is and tuned. Nothing was
chosen on these clients. What is done is kept, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fedpl
from benchmarks.machine import describe
from fedpl.data import AIRLINES, FederatedData, Split, Tweets
from fedpl.files import write_atomically, write_json
from fedpl.onboard.past import Past
from fedpl.onboard.session import Start, onboard

RESULTS = Path(__file__).parent / "results" / "onboarding.json"
HELD_OUT = ("usairways", "virgin")
SIZES = (8, 16, 32)
PAGE = """# Newcomers of a finished run

Written by `python -m benchmarks.onboarding` from the JSON beside it, which names machine, versions and
commit. FedBip-G ran on eight clients (four airlines × two conventions, 32 examples each, 5 rounds); the four
clients of two other airlines joined afterwards. Test accuracy in %, mean over the four clients, ± standard
deviation where there are several seeds (here {seeds}); the worst client is averaged over seeds.

{table}

*Local only* has as many steps as *from θ₀, tuned*: six rounds; *nearest* has two looks at its data, *tuned*
included. *Same group* is the weight that a newcomer gives to clients of its own convention, itself included.
"""


def fewer(data: FederatedData, examples: int) -> FederatedData:
    """The same clients with so many training examples; their classes alternate, so a prefix is balanced."""

    def cut(split: Split) -> Split:
        return Split(split.texts[:examples], split.labels[:examples])

    return replace(data, clients=tuple(replace(one, train=cut(one.train)) for one in data.clients))


def joined(past: Past, data: FederatedData, start: Start) -> dict[str, Any]:
    """Accuracies of newcomers by model and client, and their weight within their own convention."""
    found = onboard(past, data, start)
    scores = {
        model: {one.client: getattr(one.scores["test"], model)["accuracy"] for one in found}
        for model in ("local", "aggregated", "tuned")
    }
    inside = [sum(w for c, w in one.weights.items() if c[-1] == one.client[-1]) for one in found]
    return {**scores, "inside": float(np.mean(inside))}


def finished(method: str, seed: int, precision: str, folder: Path) -> Past:
    """A run of the clients that are there from the beginning, made or gone on with if need be."""
    path = folder / f"{method}-{seed}"
    if (path / "config.yaml").is_file():
        run = fedpl.Run.open(path)
        return Past.of((run if run.finished else fedpl.go_on(path)).path)
    others = Tweets(topics=tuple(topic for topic in AIRLINES if topic not in HELD_OUT))
    config = fedpl.Config.of(method, seed=seed, data=others, precision=precision, baselines=[])
    changes = {"store_vectors": True, "tracking__plots": False, "evaluation__every": 0}
    return Past.of(fedpl.run(config, run_dir=str(path), **changes).path)


# How newcomers join, by the name in the results: which run, and from where.
WAYS: dict[str, tuple[str, Start]] = {
    "base": ("fedbip_g", "base"),
    "nearest": ("fedbip_g", "nearest"),
    "average": ("fedavg", "nearest"),
}


def run_seed(
    seed: int, precision: str, folder: Path, found: dict[str, Any], save: Callable[[], None]
) -> None:
    """What is missing of a seed."""
    data = Tweets(topics=HELD_OUT).load(seed)
    for size in SIZES:
        own = found.setdefault(str(size), {})
        for way in [one for one in WAYS if one not in own]:
            method, start = WAYS[way]
            own[way] = joined(finished(method, seed, precision, folder), fewer(data, size), start)
            save()
            print(f"seed {seed}  {size} examples  {way}: {own[way]}", flush=True)


def whole(seed: dict[str, Any]) -> bool:
    """Whether nothing of a seed is missing."""
    return all(WAYS.keys() == seed.get(str(size), {}).keys() for size in SIZES)


ROW_OF = {"base": "from θ₀", "nearest": "nearest"}
ROWS = {
    "local only": ("base", "local"),
    "averaging's model": ("average", "aggregated"),
    "averaging's model, tuned": ("average", "tuned"),
    "from θ₀": ("base", "aggregated"),
    "from θ₀, tuned": ("base", "tuned"),
    "nearest": ("nearest", "aggregated"),
    "nearest, tuned": ("nearest", "tuned"),
}


def table(seeds: dict[str, Any]) -> str:
    """Rows are what a newcomer is served with, columns its number of examples."""
    head = "".join(f" {size} examples | worst |" for size in SIZES)
    lines = [f"| model |{head}", f"|---|{'---|' * 2 * len(SIZES)}"]
    for name, (start, model) in ROWS.items():
        cells = []
        for size in SIZES:
            own = [100 * np.array([*one[str(size)][start][model].values()]) for one in seeds.values()]
            cells += [_spread([values.mean() for values in own]), f"{np.mean([v.min() for v in own]):.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for start in ("base", "nearest"):
        inside = [[100 * one[str(size)][start]["inside"] for one in seeds.values()] for size in SIZES]
        lines.append(
            f"| same group, {ROW_OF[start]} | {' | '.join(f'{np.mean(own):.0f} % | ' for own in inside)}|"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, write the JSON and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onboarding", description=__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--precision", default="auto", help="auto, 32-true or bf16-mixed")
    parser.add_argument("--runs", type=Path, default=Path("runs/onboarding"), help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {**describe(), "precision": arguments.precision, "seeds": {}}
    if arguments.out.is_file():
        results["seeds"] = json.loads(arguments.out.read_text())["seeds"]
    for seed in arguments.seeds:
        run_seed(
            seed,
            arguments.precision,
            arguments.runs,
            results["seeds"].setdefault(str(seed), {}),
            lambda: write_json(arguments.out, results),
        )
    seeds = {seed: found for seed, found in results["seeds"].items() if whole(found)}
    page = PAGE.format(seeds=", ".join(seeds), table=table(seeds))
    write_atomically(arguments.out.with_suffix(".md"), page.encode())
    print(page)


if __name__ == "__main__":
    main()
