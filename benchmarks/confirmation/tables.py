"""The page of the study: accuracies, what may be said, who is harmed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.confirmation.entrants import ENTRANTS, GUARD
from benchmarks.confirmation.populations import POPULATIONS, STRANGERS
from benchmarks.confirmation.statistics import MARGIN, Scores, gain, harmed, not_below_better
from fedpl.compare.paired import adjusted
from fedpl.records.scores import MARGIN as HARM

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by population, seed and entrant

PAGE = """# Rules on populations that they were not chosen on

Written by `python -m benchmarks.confirmation` from the JSON beside it, which names machine, versions and
commit. The rules and their constants were chosen on the populations of `benchmarks.groups`. {texts} Test
accuracy of θ̄, what a client receives, is the primary score; seeds share no example. Nothing was tuned for
any method: all have the default client's learning rate and steps, and learn in the upper two of six blocks.
*true groups* knows the groups; *ifca, told how many* knows their number; *average* weighs clients alike,
*average by size* as FedIT does.

## θ̄: test accuracy in %, mean over clients and seeds

{aggregated}

## θ: the same after local training

{tuned}

## Is θ̄ more than {margin} point below the better of training alone and averaging?

Difference to the better one, its 95 % interval (bootstrap over seeds and clients within), and the
probability of the data if it lost {margin} point or more to either, by Holm's correction over
populations: up to 0.05 the rule is shown not to be worse.

{no_harm}

## Where there are groups: share of the true groups' gain over the better of the two

{recovered}

## What clients choose by their validation data (`client.guard`), beside θ̄

{chosen}

## Clients that lose more than {harm} points against training alone, in %

{harmed}
"""

OF_TEXTS = {
    "requests": """A first round of
this study, on seed 0 (`confirmation-first.json`), showed where `fedbip_h` was short; it was made anew on
other texts, and all that is shown here was run afterwards, on seeds that share no example with that one.""",
    "sentences": """These
texts were first looked at here, once, with `fedbip_h` as it came out of the study of requests
(`confirmation.json`); their corpora, each as a client's own task, are among those of `benchmarks.groups`.""",
}

PARTS = ("aggregated", "tuned", "no_harm", "recovered", "chosen", "harmed")


def file_of(texts: str) -> str:
    """Where the results on these texts are kept."""
    return "confirmation.json" if texts == "requests" else f"confirmation-{texts}.json"


def page(results: Results, texts: str = "requests") -> str:
    """All tables, of what has been run so far."""
    parts = {part: table(results, part) for part in PARTS}
    return PAGE.format(texts=OF_TEXTS[texts], margin=f"{100 * MARGIN:g}", harm=f"{100 * HARM:g}", **parts)


def table(results: Results, part: str) -> str:
    """One of `PARTS`, of what has been run so far."""
    ran = {name for seeds in results.values() for own in seeds.values() for name in own}
    # What is sent is the same with a guard and without.
    names, guarded = (
        [name for name in ENTRANTS if name in ran and name.endswith(GUARD) == wanted]
        for wanted in (False, True)
    )
    match part:
        case "no_harm":
            return _no_harm(results, [name for name in names if name.startswith(("fedbip", "pfedgraph"))])
        case "recovered":
            return _recovered(results, [name for name in names if name not in ("local", "average")])
        case "chosen":
            return _chosen(results, guarded)
        case "harmed":
            return _harmed(results, [name for name in (*names, *guarded) if name != "local"])
    return _accuracies(results, names, part)


def scores_of(results: Results, population: str, name: str, model: str = "aggregated") -> Scores:
    """By seed and client, of the seeds that have it."""
    return {seed: own[name][model] for seed, own in results[population].items() if name in own}


def _accuracies(results: Results, names: list[str], model: str) -> str:
    rows = [
        [
            f"{population} ({_seeds(results, population)})",
            *(_mean(results, population, name, model) for name in names),
        ]
        for population in results
    ]
    return _table(["population (clients, seeds)", *names], rows)


def _chosen(results: Results, names: list[str]) -> str:
    pairs = [(name.removesuffix(GUARD), name) for name in names]
    rows = []
    for population in results:
        cells = [population, _mean(results, population, "local", "tuned")]
        for name, guarded in pairs:
            cells += [
                _mean(results, population, name, "aggregated"),
                _mean(results, population, guarded, "chosen"),
            ]
        rows.append(cells)
    heads = [head for name, _ in pairs for head in (f"{name} θ̄", f"{name} chosen")]
    return _table(["population", "local", *heads], rows)


def _mean(results: Results, population: str, name: str, model: str) -> str:
    own = scores_of(results, population, name, model)
    means = [np.mean(list(clients.values())) for clients in own.values()]
    return f"{100 * np.mean(means):.1f}" if means else ""


def _no_harm(results: Results, names: list[str]) -> str:
    cells: dict[str, dict[str, str]] = {population: {} for population in results}
    for name in names:
        told: dict[str, tuple[str, float]] = {}
        for population in results:
            own, others = scores_of(results, population, name), _both(results, population)
            if own and all(others) and all(own.keys() <= other.keys() for other in others):
                gains = [gain(own, other) for other in others]
                least = min(gains, key=lambda found: found.mean)
                text = f"{100 * least.mean:+.1f} [{100 * least.low:+.1f}, {100 * least.high:+.1f}]"
                told[population] = text, not_below_better(gains)
        corrected = adjusted([value for _, value in told.values()])
        for (population, (text, _)), value in zip(told.items(), corrected, strict=True):
            cells[population][name] = f"{text}, {value:.2f}"
    rows = [[population, *(own.get(name, "") for name in names)] for population, own in cells.items()]
    return _table(["population", *names], rows)


def _recovered(results: Results, names: list[str]) -> str:
    rows = []
    for population in results:
        true = scores_of(results, population, "true groups")
        others = _both(results, population)
        if not (POPULATIONS | STRANGERS)[population].groups or not true or not all(others):
            continue
        best = max((gain(other, true).mean, place) for place, other in enumerate(others))[1]
        whole = gain(true, others[best])
        cells = [population, f"{100 * whole.mean:+.1f} [{100 * whole.low:+.1f}, {100 * whole.high:+.1f}]"]
        for name in names:
            own = scores_of(results, population, name)
            share = gain(own, others[best]).mean / whole.mean if own and whole.mean > MARGIN else None
            cells.append("" if share is None else f"{100 * share:.0f} %")
        rows.append(cells)
    return _table(["population", "true groups' gain, points", *names], rows)


def _harmed(results: Results, names: list[str]) -> str:
    rows = []
    for population in results:
        alone, cells = scores_of(results, population, "local", "tuned"), [population]
        for name in names:
            model = "chosen" if name.endswith(GUARD) else "aggregated"
            own = scores_of(results, population, name, model)
            cells.append(f"{100 * harmed(own, alone, HARM):.0f}" if own and alone else "")
        rows.append(cells)
    return _table(["population", *names], rows)


def _both(results: Results, population: str) -> list[Scores]:
    return [scores_of(results, population, name) for name in ("local", "average")]


def _seeds(results: Results, population: str) -> str:
    seeds = results[population]
    clients = max((len(own["aggregated"]) for found in seeds.values() for own in found.values()), default=0)
    return f"{clients}, {len(seeds)}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
