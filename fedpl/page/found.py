"""What a run directory holds for its page, finished or not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.records.earlier import Earlier
from fedpl.records.plain import Matrix
from fedpl.records.results import Baseline, MethodResult, Model, RunSummary
from fedpl.records.rounds import RoundRecord, SplitScores, over_all, read_rounds
from fedpl.records.scores import Metric, is_harmed
from fedpl.runs.origin import Origin
from fedpl.runs.resume import saved_configuration
from fedpl.tracking.matrices import Name, read_matrix

_MODELS: tuple[Model, ...] = ("aggregated", "tuned", "chosen")


@dataclass(frozen=True)
class Found:
    """A run.

    Attributes:
        folder: Its directory.
        settings: Its configuration as YAML; empty where there is none.
        planned: How many rounds it was to have.
        records: Its rounds so far.
        summary: Its result, where it is finished.
        metrics: What a score consists of, the primary metric first; empty where nothing says so yet: names
            alone do not tell whether more is better.
        data: Digest of the data.
        versions: Of packages.
        seed: The run's, where it is known.
        begun: With which run's models it began; None: at θ₀.
    """

    folder: Path
    settings: str
    planned: int
    records: tuple[RoundRecord, ...]
    summary: RunSummary | None
    metrics: tuple[Metric, ...]
    data: str | None
    versions: Mapping[str, str]
    seed: int | None
    begun: Earlier | None = None

    @classmethod
    def read(cls, folder: Path) -> "Found":
        """What there is of a run.

        Raises:
            UserError: If the folder holds no run, or a file of it is damaged.
        """
        configuration, rounds = folder / "config.yaml", folder / "metrics.jsonl"
        finished = (folder / RunSummary.FILE).is_file()
        if not finished and not configuration.is_file():
            raise UserError(
                f"{folder} holds no run (neither config.yaml nor summary.json is in it); name the directory "
                f"that a run printed"
            )
        settings = configuration.read_text(encoding="utf-8") if configuration.is_file() else ""
        values = _mapping(settings, configuration)
        records = read_rounds(rounds) if rounds.is_file() else ()
        summary = RunSummary.read(folder) if finished else None
        if summary is not None and len(records) > summary.rounds:
            summary = None  # the run goes on with more rounds
        state = folder / "state"
        origin = Origin.read(state) if (state / Origin.FILE).is_file() else None
        return cls(
            folder=folder,
            settings=settings,
            planned=summary.rounds if summary else int(values.get("rounds") or len(records)),
            records=records,
            summary=summary,
            metrics=summary.metrics if summary else _declared(folder, records),
            data=(summary and summary.data) or (origin.data if origin else None),
            versions=(summary and summary.versions) or (origin.versions if origin else {}),
            seed=summary.seed if summary else values.get("seed"),
            begun=(summary and summary.begun) or (origin.begun if origin else None),
        )

    @property
    def method(self) -> str:
        """Name of the method."""
        if self.summary is not None:
            return self.summary.method
        return self.records[-1].method if self.records else str(_mapping(self.settings).get("name", ""))

    @property
    def clients(self) -> tuple[str, ...]:
        """Ids, in the order of rows; none before the first round."""
        if self.summary is not None:
            return tuple(self.summary.clients)
        return self.records[-1].clients.id if self.records else ()

    @property
    def primary(self) -> Metric | None:
        return self.metrics[0] if self.metrics else None

    @property
    def validated(self) -> RoundRecord | None:
        """The last round with validation scores."""
        return next((record for record in reversed(self.records) if record.validation), None)

    @property
    def scored(self) -> RunSummary | SplitScores | None:
        """Scores by client: test scores of a finished run, else the last validation scores."""
        if self.summary is not None:
            return self.summary
        return self.validated.validation if self.validated else None

    def score(self, client: str, model: Model, metric: Metric) -> float:
        """A client's score; NaN for none."""
        if self.summary is not None:
            return self.summary.scores_of(client).value(model, metric)
        return self.scored.clients[client].value(model, metric) if self.scored else math.nan  # type: ignore

    def matrix(self, round: int, name: Name) -> Matrix | None:
        """A round's matrix; None where it is not kept."""
        try:
            return read_matrix(self.folder / "matrices", round, name)
        except UserError:
            if self.summary is not None and round == self.summary.rounds:
                place = {client: row for row, client in enumerate(self.summary.clients)}
                rows = [place[client] for client in self.summary.compared]
                own = np.asarray(getattr(self.summary, name), dtype=float)
                return over_all(own, rows, len(place), float(name == "weights"))
            return None

    def last(self, name: Name) -> Matrix | None:
        """The last round's matrix."""
        rounds = self.summary.rounds if self.summary else len(self.records)
        return self.matrix(rounds, name) if rounds else None


@dataclass(frozen=True)
class Alone:
    """Local-only training beside a run: on test data, so of finished runs.

    Attributes:
        local: Its scores; None: there is none.
        margin: From which loss of the primary metric on, in its own numbers, a client counts as harmed.
    """

    local: Baseline | RunSummary | None
    margin: float

    @classmethod
    def beside(cls, run: Found, all_runs: Sequence[Found], margin: float) -> "Alone":
        """The run's own baseline, else a run of local-only training on the same data and seed."""
        if run.summary is None:
            return cls(None, margin)
        local: Baseline | RunSummary | None = run.summary.baselines.get("local")
        for other in all_runs if local is None else ():
            same = other.data is not None and (other.data, other.seed) == (run.data, run.seed)
            if other is not run and other.method == "local" and same and other.metrics == run.metrics:
                local = other.summary
        return cls(local, margin)

    def score(self, client: str, metric: Metric) -> float:
        """A client's, trained alone; NaN for none."""
        if self.local is None or client not in self.local.clients:
            return math.nan
        return self.local.scores_of(client).value("aggregated", metric)

    def harmed(self, run: Found) -> dict[str, tuple[Model, ...]]:
        """Clients with a model that is worse than the one they train alone, and which."""
        metric = run.primary
        if metric is None or self.local is None:
            return {}
        found = {
            client: tuple(
                model
                for model in _MODELS
                if is_harmed(
                    run.score(client, model, metric), self.score(client, metric), metric, self.margin
                )
            )
            for client in run.clients
        }
        return {client: models for client, models in found.items() if models}


def _mapping(settings: str, path: Path | None = None) -> dict[str, Any]:
    try:
        values = yaml.safe_load(settings) if settings else {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {error}") from error
    return values if isinstance(values, dict) else {}


def _declared(folder: Path, records: Sequence[RoundRecord]) -> tuple[Metric, ...]:
    """The metrics of an unfinished run: as a method that is done says, else as the configured task does."""
    scored = next((record.validation for record in records if record.validation), None)
    if scored is None:
        return ()
    for result in sorted(folder.glob(f"state/**/{MethodResult.FILE}")):
        return MethodResult.read(result.parent).metrics
    try:
        config: Config = saved_configuration(folder)
    except UserError:  # a task of the user's own, which nobody has imported here
        return ()
    known = {metric.name: metric for metric in (*config.task.metrics, *config.task.decoded)}
    return tuple(known[name] for name in scored.aggregated.mean if name in known)
