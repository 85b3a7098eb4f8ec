"""``python -m benchmarks.confirmation``: settled rules, once, on populations that they have not seen.

The rules and their constants were chosen on the populations of `benchmarks.groups`; nothing may be chosen on
these. Every run is one of ``fedpl.compare`` (of ``fedpl.fit``, where clients may choose what they train
alone); its clients' scores are kept in the JSON as soon as it is there, and what is there is not run again,
so that the study can go on another day or on another machine.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.confirmation.entrants import ENTRANTS
from benchmarks.confirmation.populations import (
    POPULATIONS,
    SEEDS,
    SPLITTING,
    STRANGERS,
    TEXTS,
    USED,
    populations,
    write_table,
)
from benchmarks.confirmation.tables import file_of, page
from benchmarks.machine import describe
from fedpl import fit
from fedpl.compare import __main__ as compare
from fedpl.files import write_atomically, write_json
from fedpl.records.results import RunSummary

RESULTS = Path(__file__).parents[1] / "results"
SETTINGS = {
    "data": "fedpl.data.TextFiles",
    **{f"data.splitting.{name}": value for name, value in SPLITTING.items()},
    # The upper third of the blocks learns: the others' answers are kept, and a run takes a third of the time.
    "lora.layers_to_transform": [4, 5],
    "client.model_dropout": False,
    "precision": "32-true",
    "evaluation.every": 0,
    "tracking.plots": "false",
    "tracking.report": "false",
    "tracking.wandb.mode": "disabled",
}


def run(texts: str, population: str, seed: int, entrants: Sequence[str], out: Path) -> dict[str, Any]:
    """Clients' test accuracies by entrant and model, on one population and seed."""
    table, asked = write_table(population, seed, out, texts), populations(texts)[population]
    settings = SETTINGS | {"data.paths": [str(table)], **asked.settings}
    alike: dict[tuple[tuple[str, object], ...], list[str]] = {}
    for name in entrants:
        own = ENTRANTS[name].settings
        if ENTRANTS[name].told:
            own += (("aggregator.receive.models", asked.models),)
        alike.setdefault(own, []).append(name)
    found: dict[str, Any] = {}
    for number, (own, names) in enumerate(alike.items()):
        folder = out / f"runs-{number}"
        presets = {name: ENTRANTS[name].preset for name in names}
        words = as_words({**settings, **dict(own)})
        if "baselines" in dict(own):  # which runs of a comparison do not have
            for preset in presets.values():
                where = folder / f"{preset}-s{seed}"
                fit.main([f"--method={preset}", f"--seed={seed}", f"--run_dir={where}", "--quiet", *words])
        else:
            wanted = ("--methods", ",".join(presets.values()), "--seeds", str(seed), "--out", str(folder))
            compare.main([*wanted, "--without_local", "--quiet", *words])
        for name, preset in presets.items():
            found[name] = _scores(RunSummary.read(folder / f"{preset}-s{seed}"))
    shutil.rmtree(out)
    return found


def as_words(settings: Mapping[str, object]) -> list[str]:
    """Settings as on the command line."""
    return [f"--{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]


def _scores(summary: RunSummary) -> dict[str, dict[str, float]]:
    metric = summary.primary
    return {
        model: {client: round(own.scores.value(model, metric), 6) for client, own in summary.clients.items()}
        for model in summary.models
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, write the JSON and the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.confirmation", description=__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--texts", choices=list(TEXTS), default="requests")
    parser.add_argument("--populations", nargs="*", choices=[*POPULATIONS, *STRANGERS])
    parser.add_argument("--entrants", nargs="*", choices=list(ENTRANTS), default=list(ENTRANTS))
    parser.add_argument("--scratch", type=Path, default=Path("runs/confirmation"), help="for runs")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args(argv)
    texts, of = options.texts, populations(options.texts)
    options.results = options.results or RESULTS / file_of(texts)
    results: dict[str, Any] = {**describe(), "settings": {k: str(v) for k, v in SETTINGS.items()}}
    results |= {"populations": {}, "commits": {}}
    if options.results.is_file():
        before = json.loads(options.results.read_text(encoding="utf-8"))
        results |= {part: before[part] for part in ("populations", "commits")}
    for seed in options.seeds:
        for population in of if options.populations is None else options.populations:
            if (texts, population, seed) in USED:
                continue
            found = results["populations"].setdefault(population, {}).setdefault(str(seed), {})
            able = [n for n in options.entrants if of[population].named or n != "true groups"]
            missing = [name for name in able if name not in found]
            if missing:
                folder = options.scratch / population.replace(" ", "-") / str(seed)
                found |= run(texts, population, seed, missing, folder)
                which = results["commits"].setdefault(population, {}).setdefault(str(seed), {})
                which |= dict.fromkeys(missing, results["commit"])
                write_json(options.results, results)
                print(f"{population}, seed {seed}: {', '.join(missing)}", flush=True)
    write_atomically(options.results.with_suffix(".md"), page(results["populations"], texts).encode())


if __name__ == "__main__":
    main()
