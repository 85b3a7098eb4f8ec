"""``python -m benchmarks.growth.program``: one run of a method on so many clients, in its own process."""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.growth.parts import Parts
from benchmarks.growth.population import StandIn
from fedpl.cli import make_parser, read
from fedpl.config import Config
from fedpl.pictures import plots
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds import asking
from fedpl.rounds.checkpoints import Checkpoints
from fedpl.rounds.journal import Journal
from fedpl.rounds.loop import RoundResult
from fedpl.runs import closing, experiment, hearing
from fedpl.runs.folder import MethodFolder
from fedpl.runs.prepared import Prepared
from fedpl.server import Aggregator
from fedpl.tracking.matrices import Matrices
from fedpl.tracking.tracker import JsonLines, Tracker
from fedpl.tracking.weights_and_biases import WandbTracker

WATCHED = (
    (Journal, "open", "journal"),
    (Journal, "write", "journal"),
    (Journal, "close", "journal"),
    (Journal, "read", "journal"),
    (asking, "vet", "vetting"),
    (asking, "alike", "vetting"),
    (Aggregator, "update", "server"),
    (hearing, "round_record", "records"),
    (JsonLines, "round", "records"),
    (Matrices, "round", "matrices"),
    (WandbTracker, "round", "wandb"),
    (WandbTracker, "finish", "wandb"),
    (MethodFolder, "write_result", "records"),
    (Checkpoints, "save", "checkpoint"),
    (Checkpoints, "prune", "checkpoint"),
    (Checkpoints, "latest", "checkpoint"),
    (RunSummary, "write", "summary"),
    (plots, "draw_run", "pictures"),
    (closing, "closing_table", "table"),
)


class Watch:
    """A tracker that takes down what every round took; it begins before the first."""

    def __init__(self, parts: Parts, executor: StandIn) -> None:
        self.rounds: list[dict[str, Any]] = []
        self.parts, self.executor = parts, executor
        self._server = self._trained = 0.0
        self._begin = time.perf_counter()
        parts.after(Checkpoints, "save", self._saved)

    @property
    def since(self) -> float:
        """Seconds beside training since the last round was on disk."""
        return time.perf_counter() - self._begin - (self.executor.seconds - self._trained)

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        self._server = result.seconds.aggregate  # the call itself returns before JAX is done

    def finish(self, summary: RunSummary) -> None:
        """The run closes."""

    def _saved(self) -> None:
        found = self.parts.take()
        found["seconds"]["server"] = self._server
        self.rounds.append({"beside_training": self.since, **found})
        self._begin, self._trained = time.perf_counter(), self.executor.seconds


def measure(clients: int, params: int, options: Sequence[str]) -> dict[str, Any]:
    """A run of three rounds, unless told otherwise: seconds, bytes and peak memory, by part."""
    executor = StandIn(clients, params)
    with tempfile.TemporaryDirectory(prefix="growth-") as root:
        folder = Path(root) / "run"
        _run(Path(root) / "small", StandIn(70, 1000), options)  # what is imported is not what is measured
        parts = Parts()
        for owner, name, part in WATCHED:
            parts.watch(owner, name, part)
        watch = Watch(parts, executor)
        config = _run(folder, executor, options, watch)
        end = {"beside_training": watch.since, **parts.take()}
        parts.peak("rest")
        kept = {
            str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()
        }
    unit = clients * params * 4
    return {
        "clients": clients,
        "params": params,
        "method": config.name,
        "options": list(options),
        "rounds": watch.rounds,
        "end": end,
        "resident": parts.resident,
        "peaks": {part: round(size / unit, 2) for part, size in parts.peaks.items()},
        "files": _shown(kept),
    }


def _run(folder: Path, executor: StandIn, options: Sequence[str], *watchers: Tracker) -> Config:
    arguments = ["--rounds=3", f"--run_dir={folder}", "--baselines=[]", "--tracking.wandb.mode=offline"]
    config = read(make_parser("fit", ""), [*arguments, "--tracking.progress=false", *options])
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, width=120)
        experiment.run(config, console, watchers, prepared=Prepared(executor))
    return config


def _shown(files: dict[str, int]) -> dict[str, int]:
    """Sizes of files, those of W&B together."""
    own = {name: size for name, size in files.items() if not name.startswith("wandb/")}
    return own | {"wandb": sum(size for name, size in files.items() if name.startswith("wandb/"))}


def main(argv: Sequence[str] | None = None) -> None:
    """Print what was measured as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth.program", description=__doc__)
    parser.add_argument("clients", type=int)
    parser.add_argument("params", type=int)
    arguments, options = parser.parse_known_args(argv)
    print(json.dumps(measure(arguments.clients, arguments.params, options)))


if __name__ == "__main__":
    main()
