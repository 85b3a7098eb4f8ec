"""One run from configuration to run directory: data, model, method, baselines, records."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console

from fedpl.clients.adapter import save_adapter
from fedpl.clients.trainer import ClientTrainer
from fedpl.config import Config
from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.files import write_atomically, write_json
from fedpl.interop import borrow
from fedpl.objectives import Objective, Plain
from fedpl.rounds.first_round import FirstRoundMemo
from fedpl.rounds.loop import Federation, RoundResult, run_rounds
from fedpl.rounds.prepared import Prepared, prepare
from fedpl.server import Aggregator, Local, Uniform
from fedpl.server.state import save_state
from fedpl.tracking.progress import Display, closing_table
from fedpl.tracking.records import round_record, run_summary
from fedpl.tracking.tracker import JsonLines, Tracker
from fedpl.tracking.vectors import store_vectors

BASELINES = {"local": Aggregator(weighting=Local()), "fedavg": Aggregator(weighting=Uniform())}


@dataclass(frozen=True)
class RunFolder:
    """The files of a run directory."""

    path: Path

    @classmethod
    def create(cls, config: Config) -> "RunFolder":
        """Make the directory; without a name, a new one under ``runs/``.

        Raises:
            UserError: If it cannot be made or already holds something.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        name = config.run_dir or f"runs/{stamp}-{config.method}-s{config.seed}"
        path = Path(name)
        attempt = 1
        while config.run_dir is None and path.exists():
            attempt += 1
            path = Path(f"{name}-{attempt}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UserError(
                    f"run_dir: {path} already holds another run or other files; name a new folder"
                )
        except OSError as error:
            raise UserError(f"run_dir: cannot make {path}: {error.strerror}") from error
        return cls(path)

    def adapter(self, client: str) -> Path:
        """Where a client's adapter lies; the id is quoted so that it cannot lead elsewhere."""
        quoted = quote(client, safe=" @+=,")
        return self.path / "adapters" / (quoted.replace(".", "%2E") if quoted.startswith(".") else quoted)

    def sub(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder


def run(
    config: Config,
    settings: dict[str, Any],
    resolved: str,
    console: Console,
    watchers: Sequence[Tracker] = (),
    prepared: Prepared | None = None,
) -> Path:
    """Run an experiment and return its run directory.

    Everything a user may have got wrong is found before the directory is made.

    Args:
        config: What to run.
        settings: The configuration as plain values, for W&B.
        resolved: The configuration as YAML, for ``config.yaml``.
        console: Where to print.
        watchers: Told of every round after it has been recorded; what they raise ends the run.
        prepared: Clients, model and executor, where another run has left them; they must fit `config`.

    Raises:
        UserError: If data, model or run directory are not as configured.
    """
    begin = time.perf_counter()
    prepared = prepared or prepare(config)
    hardware, data, trainer, local, initial = prepared
    folder = RunFolder.create(config)
    write_atomically(folder.path / "config.yaml", resolved.encode())
    trackers = [*_trackers(config, folder, settings, data), *watchers]
    executor = FirstRoundMemo(local) if config.baselines else local

    with Display(console, config.tracking.progress) as display:
        size = f"{len(data.clients)} clients, {trainer.layout.size:,} trainable parameters each"
        display.line(f"fedpl: {config.method} on {hardware.device}, {hardware.precision}: {size}")

        def rounds(
            method: str, aggregator: Aggregator, every: int, objective: Objective
        ) -> Iterator[RoundResult]:
            display.begin(method, config.rounds, len(data.clients))
            federation = Federation(
                data.ids,
                trainer.layout,
                aggregator,
                executor,
                initial,
                every,
                display.client,
                objective=objective,
            )
            return run_rounds(federation, config.rounds)

        results = []
        every, objective = config.evaluation.every, config.client.objective
        for result in rounds(config.method, config.aggregator, every, objective):
            record = round_record(config.method, data.ids, result)
            for tracker in trackers:
                tracker.round(record, result)
            save_state(result.state, folder.sub("state") / "server.safetensors")
            if config.store_vectors:
                store_vectors(folder.sub("vectors"), result.round, result.vectors, config.store_vectors)
            display.round(record, config.rounds)
            results.append(result)
        _save_adapters(folder, trainer, data, results[-1])

        baselines: dict[str, RoundResult] = {}
        for name in config.baselines:
            for result in rounds(name, BASELINES[name], 0, Plain()):
                display.round(round_record(name, data.ids, result), config.rounds)
            baselines[name] = result

    parts = {
        name: sum(getattr(result.seconds, name) for result in results)
        for name in ("train", "aggregate", "evaluate")
    }
    seconds = {**parts, "total": time.perf_counter() - begin}
    summary = run_summary(config.method, config.seed, data, results, baselines, seconds)
    write_json(folder.path / "summary.json", summary)
    for tracker in trackers:
        tracker.finish(summary)
    if config.tracking.plots:
        from fedpl.tracking.plots import draw_run

        draw_run(folder.path)
    console.print(closing_table(summary))
    for what, where in (("run directory", ""), ("adapters", "adapters"), ("pictures", "plots")):
        if where != "plots" or config.tracking.plots:
            console.print(f"{what}: {folder.path / where}", highlight=False, soft_wrap=True)
    return folder.path


def _trackers(
    config: Config, folder: RunFolder, settings: dict[str, Any], data: FederatedData
) -> list[Tracker]:
    trackers: list[Tracker] = [JsonLines(folder.path / "metrics.jsonl")]
    from fedpl.tracking.weights_and_biases import WandbTracker, choose_mode

    if choose_mode(config.tracking.wandb) != "disabled":
        trackers.append(WandbTracker(config.tracking.wandb, folder.path, settings, data.ids))
    return trackers


def _save_adapters(
    folder: RunFolder, trainer: ClientTrainer, data: FederatedData, result: RoundResult
) -> None:
    """Every client's aggregate θ̄ᵢ in PEFT format."""
    personal = borrow(result.state.personal)
    folder.sub("adapters")
    for row, client in enumerate(data.ids):
        save_adapter(personal[row], trainer.model, trainer.layout, folder.adapter(client))
