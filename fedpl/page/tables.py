"""The tables of a page: a run's result, its clients beside local-only training, what differs between runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from fedpl.data.wording import readable
from fedpl.page.found import Alone, Found
from fedpl.records.results import Model, Statistics
from fedpl.records.scores import Metric

MODELS: dict[Model, str] = {"aggregated": "aggregated θ̄", "tuned": "tuned θ"}
ALL: dict[Model, str] = {**MODELS, "chosen": "chosen by its guard"}
_GAINS: dict[Model, str] = {"aggregated": "θ̄", "tuned": "θ", "chosen": "what was chosen"}
_NAMES = {"local": "local only", "fedavg": "federated average"}


class Cell(NamedTuple):
    """What stands in a table, and the number to sort it by; None: it is text, or there is nothing."""

    text: str
    value: float | None = None


class Table(NamedTuple):
    """Columns' titles and rows; of a client's row also whether it is harmed."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: tuple[bool, ...] = ()


def score(value: float, metric: Metric, sign: str = "") -> Cell:
    """A score for people; it is sorted by the number as recorded."""
    return Cell(metric.shown(value, sign), value if math.isfinite(value) else None)


def number(value: float | int | None, digits: int = 3) -> Cell:
    """Any other number."""
    if value is None or not math.isfinite(value):
        return Cell("–")
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}", float(value))


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def results(run: Found, alone: Alone) -> Table | None:
    """Each model over all clients: mean, worst client and decile of the primary metric, other means."""
    summary, metric = run.summary, run.primary
    if metric is None or run.scored is None:
        return None
    rows: list[tuple[str, Statistics, Model]] = []
    if summary is None:
        by_model = {model: getattr(run.scored, model) for model in MODELS}
        rows_of = [
            (f"{run.method}, {name}", {s: getattr(by_model[m], s) for s in by_model[m]._fields})
            for m, name in MODELS.items()
        ]
    else:
        rows = [(f"{run.method}, {name}", summary.test, model) for model, name in _models(run).items()]
        baselines = {name: own.test for name, own in summary.baselines.items()}
        if alone.local is not None:
            baselines = {"local": alone.local.test} | baselines
        rows += [(_NAMES.get(name, name), test, "aggregated") for name, test in baselines.items()]
        rows += [(summary.floor_name, summary.test, "majority")]
        statistics = ("mean", "worst", "bottom_decile", "std")
        rows_of = [
            (name, {s: {m.name: test.value(s, model, m) for m in run.metrics} for s in statistics})
            for name, test, model in rows
        ]
    cells = tuple(
        (
            Cell(readable(name)),
            *(score(found[s][metric.name], metric) for s in ("mean", "worst", "bottom_decile")),
            *(score(found["mean"][other.name], other) for other in run.metrics[1:]),
        )
        for name, found in rows_of
    )
    columns = ("model", "mean", "worst client", "worst tenth", *(f"mean {m.title}" for m in run.metrics[1:]))
    return Table(columns, cells)


def clients(run: Found, alone: Alone) -> Table | None:
    """A row for each client: local-only training, the method's models, gains, weights, what is to be said."""
    metric, last = run.primary, run.records[-1].clients if run.records else None
    if metric is None or run.scored is None:
        return None
    summary, harmed = run.summary, alone.harmed(run)
    titles: dict[str, list[Cell]] = {"client": [Cell(readable(client)) for client in run.clients]}
    titles["note"] = [Cell(note(run, client, harmed)) for client in run.clients]

    def values(title: str, model: Model) -> None:
        titles[title] = [score(run.score(client, model, metric), metric) for client in run.clients]

    if alone.local is not None:
        titles["local only"] = [score(alone.score(client, metric), metric) for client in run.clients]
    for model, name in _models(run).items():
        values(name, model)
        if alone.local is not None:
            titles[f"gain of {_GAINS[model]}"] = [
                score(metric.sign * (run.score(c, model, metric) - alone.score(c, metric)), metric, "+")
                for c in run.clients
            ]
    if summary is not None:
        for name, other in summary.baselines.items():
            if name != "local":
                own = [other.scores_of(client).value("aggregated", metric) for client in run.clients]
                titles[_NAMES.get(name, readable(name))] = [score(value, metric) for value in own]
        values(summary.floor_name, "majority")
        if any(own.choice for own in summary.clients.values()):
            titles["answers for it"] = [
                Cell(own.choice.model if own.choice else "–") for own in summary.clients.values()
            ]
        titles["examples"] = [number(own.examples) for own in summary.clients.values()]
    if last is not None and last.id == run.clients:
        titles["own weight"] = [number(value) for value in last.self_weight]
        titles["effective neighbours"] = [number(value) for value in last.effective_neighbours]
    rows = tuple(zip(*titles.values(), strict=True))
    return Table(tuple(titles), rows, tuple(client in harmed for client in run.clients))


def note(run: Found, client: str, harmed: Mapping[str, Sequence[Model]]) -> str:
    """What is to be said about a client in words."""
    said = []
    if client in harmed:
        said.append("harmed: " + " and ".join(ALL[model] for model in harmed[client]))
    if run.summary is not None and run.summary.hostile is not None and client in run.summary.hostile.clients:
        said.append("attacks")
    if rejected := sum(client in record.rejected for record in run.records):
        said.append(f"rejected in {rejected} round{'' if rejected == 1 else 's'}")
    return "; ".join(said)


def differences(runs: Sequence[Found]) -> Table:
    """Settings in which runs differ, a column for each run; the data and versions likewise."""
    said = [
        _flat(yaml.safe_load(run.settings) or {})
        | {f"version of {name}": version for name, version in run.versions.items()}
        | {"data": run.data or "–"}
        for run in runs
    ]
    keys = dict.fromkeys(key for own in said for key in own)
    rows = tuple(
        (Cell(readable(key)), *(Cell(readable(own.get(key, "–"), 80)) for own in said))
        for key in keys
        if len({own.get(key) for own in said}) > 1 and key not in ("run_dir", "tracking.wandb.group")
    )
    return Table(("", *labels(runs)), rows)


def comparison(runs: Sequence[Found], alone: Sequence[Alone]) -> Table:
    """What runs found, a column for each."""
    names = dict.fromkeys(metric.name for run in runs for metric in run.metrics)
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        metric = next(m for run in runs for m in run.metrics if m.name == name)
        for model, title in MODELS.items():
            found = [_mean(run, model, name, "mean") for run in runs]
            rows.append((Cell(f"mean {metric.title}, {title}"), *(score(value, metric) for value in found)))
        for model, title in MODELS.items():
            found = [_mean(run, model, name, "worst") for run in runs]
            said = f"worst client's {metric.title}, {title}"
            rows.append((Cell(said), *(score(value, metric) for value in found)))
    counts = [
        None if own.local is None else len(own.harmed(run)) for run, own in zip(runs, alone, strict=True)
    ]
    rows += [
        (Cell("harmed clients"), *map(number, counts)),
        (Cell("clients"), *(number(len(run.clients)) for run in runs)),
        (Cell("rounds done"), *(number(len(run.records) or run.planned) for run in runs)),
        (Cell("scored on"), *(Cell("test" if run.summary else "validation") for run in runs)),
        (
            Cell("traffic both ways"),
            *(Cell(size(sum(r.bytes_up + r.bytes_down for r in run.records))) for run in runs),
        ),
        (Cell("seconds of all rounds"), *(number(sum(sum(r.seconds) for r in run.records)) for run in runs)),
    ]
    return Table(("", *labels(runs)), tuple(rows))


def _models(run: Found) -> dict[Model, str]:
    """Of what a run has scores."""
    return MODELS if run.summary is None else {model: ALL[model] for model in run.summary.models}


def labels(runs: Sequence[Found]) -> tuple[str, ...]:
    """A name for each run: its method, and its folder where several are shown."""
    return tuple(f"{readable(run.method)} ({readable(run.folder.resolve().name)})" for run in runs)


def _mean(run: Found, model: Model, name: str, statistic: str) -> float:
    if run.scored is None or name not in {metric.name for metric in run.metrics}:
        return math.nan
    if run.summary is not None:
        metric = next(metric for metric in run.metrics if metric.name == name)
        return run.summary.test.value(statistic, model, metric)
    return float(getattr(getattr(run.scored, model), statistic)[name])


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {
            k: v
            for key, own in value.items()
            for k, v in _flat(own, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: str(value)}
