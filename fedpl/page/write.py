"""From run directories to the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fedpl.data.wording import counted, readable, some
from fedpl.files import write_atomically, writing
from fedpl.page import charts, methods, network, tables
from fedpl.page.film import BYTES, film
from fedpl.page.found import Alone, Found
from fedpl.page.neighbours import neighbours
from fedpl.pictures.plots import cluster_order
from fedpl.records.comparison import Comparison
from fedpl.records.plain import LARGEST
from fedpl.records.scores import MARGIN
from fedpl.tracking.settings import TrackingConfig
from fedpl.tracking.tracker import beside

_FEW = 16  # clients whose matrices are also told in numbers
_LISTED = 100  # of what was noticed and rejected


def write_page(
    runs: Sequence[Found], output: Path, margin: float = MARGIN, found: Comparison | None = None
) -> None:
    """Write runs side by side as one HTML file.

    Args:
        runs: Finished or not.
        output: The file.
        margin: From which loss of the primary metric on, in its own numbers, a client counts as harmed.
        found: The comparison that the runs are of.

    Raises:
        UserError: If the file cannot be written.
    """
    content = page(runs, margin, found)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, content.encode())


def write_at_end(folder: Path, tracking: TrackingConfig) -> Path | None:
    """A run's page when it has ended, where it is wanted or cheap; an error is named and ends nothing.

    Args:
        folder: The run directory.
        tracking: What the run was to show.
    """
    with beside("the page"):
        run = Found.read(folder)
        cheap = tracking.plots and len(run.clients) <= LARGEST
        if not (cheap if tracking.report is None else tracking.report):
            return None
        write_page([run], folder / "report.html")
        return folder / "report.html"
    return None


def page(runs: Sequence[Found], margin: float = MARGIN, found: Comparison | None = None) -> str:
    """The page; arguments as of `write_page`."""
    loader = jinja2.PackageLoader("fedpl.page", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    parts = {kind: Markup(loader.get_source(environment, f"report.{kind}")[0]) for kind in ("css", "js")}
    alone = [Alone.beside(run, runs, margin) for run in runs]
    names = tables.labels(runs)
    shown = [
        View.of(run, own, name, number, BYTES // len(runs))
        for number, (run, own, name) in enumerate(zip(runs, alone, names, strict=True), start=1)
    ]
    several = len(runs) > 1
    return environment.get_template("report.html").render(
        title=" · ".join(names) if len(runs) <= 3 else f"{len(runs)} runs",
        views=shown,
        methods=None if found is None else (methods.title(found), methods.methods(found)),
        comparison=tables.comparison(runs, alone) if several else None,
        differences=tables.differences(runs) if several else None,
        warnings=_warnings(runs) if several else (),
        **parts,
    )


@dataclass(frozen=True)
class View:
    """What the template shows of a run."""

    run: Found
    name: str
    number: int
    state: str
    headline: tuple[tuple[str, str], ...]
    results: tables.Table | None
    clients: tables.Table | None
    curves: Markup | None
    traffic: Markup | None
    time: Markup | None
    film: dict[str, Any] | None
    numbers: dict[str, list[list[str]]] | None
    graph: Markup | None
    map: Markup | None
    threshold: tuple[float, float]
    groups: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    events: tuple[str, ...]
    settings: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, run: Found, alone: Alone, name: str, number: int, budget: int) -> "View":
        """Everything about a run, drawn."""
        similarity, weights = run.last("similarity"), run.last("weights")
        harmed = alone.harmed(run)
        order, found, numbers = list(range(len(run.clients))), None, None
        if similarity is not None and weights is not None and run.clients:
            order, found = cluster_order(similarity), neighbours(similarity, weights)
            if len(order) <= _FEW:
                both = {"similarity": similarity, "weights": weights}
                numbers = {k: [[f"{v:.3f}" for v in row] for row in m] for k, m in both.items()}
        members: dict[int, list[str]] = {}
        for client, group in zip(run.clients, found.groups if found else (), strict=False):
            members.setdefault(group, []).append(client)
        return cls(
            run=run,
            name=name,
            number=number,
            state=_state(run),
            headline=_headline(run, alone),
            results=tables.results(run, alone),
            clients=tables.clients(run, alone),
            curves=charts.curves(run),
            traffic=charts.traffic(run),
            time=charts.time(run),
            film=film(run, order, budget),
            numbers=numbers,
            graph=network.graph(run.clients, found, order, number) if found else None,
            map=network.scatter(run.clients, found, harmed) if found else None,
            threshold=(found.threshold, abs(found.edges[0].weight)) if found and found.edges else (0.0, 0.0),
            groups=tuple(f"{counted(len(own), 'client')}: {some(own)}" for _, own in sorted(members.items())),
            facts=_facts(run, alone),
            events=_events(run),
            names=tuple(map(readable, run.clients)),
            settings="\n".join(readable(line, 500) for line in run.settings.splitlines()),
        )


def _state(run: Found) -> str:
    rounds = f"{run.planned} round{'' if run.planned == 1 else 's'}"
    if run.summary is not None:
        return f"seed {run.seed}, {rounds}, {counted(len(run.clients), 'client')}"
    on = f"; scores are of the validation split in round {run.validated.round}" if run.validated else ""
    return f"Unfinished: {len(run.records)} of {rounds} done, seed {run.seed}{on}"


def _headline(run: Found, alone: Alone) -> tuple[tuple[str, str], ...]:
    """The numbers to begin with: what, and how much."""
    metric, summary = run.primary, run.summary
    if metric is None or summary is None:
        return ()

    def value(statistic: str, model: Any, of: Any = summary) -> str:
        return metric.shown(of.test.value(statistic, model, metric))

    direction = "more is better" if metric.higher else "less is better"
    found = [(f"mean {metric.title} ({direction}), as received", value("mean", "aggregated"))]
    found += [("after local training", value("mean", "tuned"))]
    if alone.local is not None:
        found += [("local only, mean", value("mean", "aggregated", alone.local))]
    found += [(f"{summary.floor_name}, mean", value("mean", "majority"))]
    found += [("worst client, as received", value("worst", "aggregated"))]
    if alone.local is None:
        return (*found, ("harmed clients", "unknown: no local-only training beside"))
    found += [("worst client, local only", value("worst", "aggregated", alone.local))]
    received, tuned = (
        sum(model in models for models in alone.harmed(run).values()) for model in ("aggregated", "tuned")
    )
    also = "harmed clients, as received" + (f"; {tuned} after local training" if tuned != received else "")
    return (*found, (also, f"{received} of {len(run.clients)}"))


def _facts(run: Found, alone: Alone) -> tuple[tuple[str, str], ...]:
    """Privacy, attacks, costs, data and versions, where there are any."""
    summary, found = run.summary, [("directory", readable(run.folder.resolve().name))]
    if alone.local is not None and run.primary is not None:
        by = f"{run.primary.factor * alone.margin:g}{' points' if run.primary.unit == '%' else ''}"
        side = "below" if run.primary.higher else "above"
        found += [("harmed", f"more than {by} {side} local-only training on test data")]
    up, down = (sum(getattr(record, way) for record in run.records) for way in ("bytes_up", "bytes_down"))
    found += [("traffic", f"{tables.size(up)} up, {tables.size(down)} down")]
    if summary is not None:
        found += [("seconds, baselines and all", f"{summary.seconds.total:.1f}")]
    if summary is not None and (privacy := summary.privacy) is not None:
        both = privacy.epsilon_with_baselines
        found += [
            ("privacy", f"clip {privacy.clip:g}, noise {privacy.noise_multiplier:g}, δ {privacy.delta:g}"),
            ("ε of the method", "–" if privacy.epsilon is None else f"{privacy.epsilon:.3g}"),
        ]
        found += [] if both is None else [("ε with the baselines", f"{both:.3g}")]
    elif run.records and (epsilon := run.records[-1].epsilon) is not None:
        found += [("ε so far", f"{epsilon:.3g}")]
    if summary is not None and (hostile := summary.hostile) is not None:
        found += [("attack", f"{hostile.attack}, strength {hostile.strength:g}: {some(hostile.clients)}")]
        if summary.honest is not None:
            metric = summary.primary
            value = summary.honest.value("mean", "aggregated", metric)
            found += [(f"honest clients, mean {metric.title}", metric.shown(value))]
    if run.begun is not None:
        found += [("began with the models of", f"{run.begun}; digest {run.begun.digest}")]
        if run.begun.epsilon is not None:
            found += [("ε spent before", f"{run.begun.epsilon:.3g}, which comes on top")]
    found += [("data digest", run.data or "not recorded")]
    found += [(f"version of {name}", version) for name, version in run.versions.items()]
    return tuple(found)


def _events(run: Found) -> tuple[str, ...]:
    """What was rejected and noticed, by round."""
    found = []
    for record in run.records:
        for what, by_client in (("rejected", record.rejected), ("noticed", record.noticed or {})):
            for client, why in by_client.items():
                found.append(f"round {record.round}, '{readable(client)}' {what}: {readable(why, 200)}")
    more = [f"and {len(found) - _LISTED} more, in metrics.jsonl"] if len(found) > _LISTED else []
    return (*found[:_LISTED], *more)


def _warnings(runs: Sequence[Found]) -> tuple[str, ...]:
    """Why runs that stand side by side cannot be compared."""
    found = []
    if len({run.data for run in runs}) > 1:
        found.append("The runs are not on the same data (see data below): their scores do not compare.")
    if len({run.begun and run.begun.digest for run in runs}) > 1:
        found.append("The runs did not begin with the same models (see began with below).")
    if len({run.metrics for run in runs if run.metrics}) > 1:
        found.append("The runs are not scored by the same metrics.")
    if len({run.summary is None for run in runs}) > 1:
        found.append("Not all runs are finished: unfinished ones have validation scores, others test scores.")
    return tuple(found)
