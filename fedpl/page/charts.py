"""Pictures by round as inline SVG: learning curves, traffic, time. Colours are the style sheet's."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from fedpl.page.film import spread
from fedpl.page.found import Found
from fedpl.page.tables import MODELS
from fedpl.records.rounds import RoundRecord

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 520, 250, 52, 34, 10
_ROUNDS = 120  # most that are drawn

_Number: TypeAlias = float | int
_Points: TypeAlias = Sequence[tuple[int, _Number]]


def curves(run: Found) -> Markup | None:
    """Mean and worst of the primary metric on validation data over the rounds; None where none was scored."""
    metric = run.primary
    scored = [record for record in run.records if record.validation is not None]
    if metric is None or not scored:
        return None
    scored = [scored[i - 1] for i in spread(len(scored), _ROUNDS)]
    series: dict[str, tuple[str, _Points]] = {}
    for model, name in MODELS.items():
        for statistic in ("mean", "worst"):
            values = [getattr(getattr(r.validation, model), statistic)[metric.name] for r in scored]
            points: _Points = [(r.round, metric.factor * v) for r, v in zip(scored, values, strict=True)]
            series[f"{name}, {statistic}"] = (f"line {model} {statistic}", points)
    frame = _Frame.around([p for _, points in series.values() for p in points])
    title = f"Validation {metric.title} by round"
    inner = [frame.axes()]
    for name, (kind, points) in series.items():
        known: _Points = [(x, y) for x, y in points if math.isfinite(y)]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in known)
        inner.append(Markup('<polyline class="{}" points="{}"/>').format(kind, path))
        inner += [
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
                kind.replace("line", "dot"), frame.x(x), frame.y(y), f"round {x}: {name} {y:.4g}"
            )
            for x, y in known
        ]
    return _picture(title, inner, {name: kind for name, (kind, _) in series.items()})


def traffic(run: Found) -> Markup | None:
    """Megabytes, of small rounds kilobytes, of each round, up and down."""
    most = max((record.bytes_up + record.bytes_down for record in run.records), default=0)
    unit, size = ("MB", 1e6) if most >= 1e5 else ("kB", 1e3)
    parts = {"up": lambda r: r.bytes_up / size, "down": lambda r: r.bytes_down / size}
    return _stacked(run.records, f"Traffic, {unit} by round", parts)


def time(run: Found) -> Markup | None:
    """Seconds of each round: training, aggregation, scoring."""
    parts = {p: (lambda r, p=p: getattr(r.seconds, p)) for p in ("train", "aggregate", "evaluate")}
    return _stacked(run.records, "Seconds by round", parts)


class _Frame:
    """Where numbers lie in a picture."""

    def __init__(self, left: _Number, right: _Number, low: _Number, high: _Number) -> None:
        self.ticks = [float(t) for t in MaxNLocator(5).tick_values(low, high)]
        self.left, self.right = left, right if right > left else left + 1
        self.low, self.high = self.ticks[0], self.ticks[-1]

    @classmethod
    def around(cls, points: _Points) -> "_Frame":
        rounds, values = [x for x, _ in points], [y for _, y in points if math.isfinite(y)] or [0.0, 1.0]
        return cls(min(rounds), max(rounds), min(values), max(values))

    def x(self, round: _Number) -> float:
        return _LEFT + 12 + (round - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - 24)

    def y(self, value: _Number) -> float:
        inside = _HEIGHT - _BOTTOM - _TOP
        return _TOP + inside * (1 - (value - self.low) / (self.high - self.low))

    def axes(self) -> Markup:
        """Lines and numbers of both axes."""
        lines = [
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:g}</text>'
            ).format(_LEFT, _WIDTH, self.y(t), self.y(t), _LEFT - 6, self.y(t) + 4, t)
            for t in self.ticks
        ]
        for t in MaxNLocator(8, integer=True).tick_values(self.left, self.right):
            if self.left <= t <= self.right and t == int(t):
                lines.append(
                    Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>').format(
                        self.x(t), _HEIGHT - _BOTTOM + 16, t
                    )
                )
        middle, bottom = (_WIDTH + _LEFT) / 2, _HEIGHT - 3
        lines.append(Markup('<text class="tick" x="{}" y="{}">round</text>').format(middle, bottom))
        return Markup("").join(lines)


def _stacked(
    records: Sequence[RoundRecord], title: str, parts: Mapping[str, Callable[[RoundRecord], _Number]]
) -> Markup | None:
    """A bar for each round, of parts."""
    if not records:
        return None
    shown = [records[i - 1] for i in spread(len(records), _ROUNDS)]
    tallest = max(sum(part(r) for part in parts.values()) for r in shown)
    frame = _Frame(shown[0].round - 0.5, shown[-1].round + 0.5, 0.0, tallest or 1.0)
    width = max(1.0, 0.7 * (_WIDTH - _LEFT - 24) / len(shown))
    inner = [frame.axes()]
    for record in shown:
        base = 0.0
        told = ", ".join(f"{name} {part(record):.4g}" for name, part in parts.items())
        bars = []
        for name, part in parts.items():
            top = base + part(record)
            bars.append(
                Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    name, frame.x(record.round) - width / 2, frame.y(top), width, frame.y(base) - frame.y(top)
                )
            )
            base = top
        inner.append(
            Markup("<g><title>{}</title>{}</g>").format(
                f"round {record.round}: {told}", Markup("").join(bars)
            )
        )
    if len(shown) < len(records):
        title += f" ({len(shown)} of {len(records)} rounds)"
    return _picture(title, inner, {name: f"bar {name}" for name in parts})


def _picture(title: str, inner: Sequence[Markup], legend: Mapping[str, str]) -> Markup:
    keys = Markup("").join(
        Markup('<span><svg class="key" viewBox="0 0 24 10" aria-hidden="true">{}</svg>{}</span>').format(
            Markup('<line class="{}" x1="0" x2="24" y1="5" y2="5"/>').format(kind)
            if kind.startswith("line")
            else Markup('<rect class="{}" width="24" height="10"/>').format(kind),
            name,
        )
        for name, kind in legend.items()
    )
    return Markup(
        '<figure><figcaption>{}</figcaption><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        '<p class="legend">{}</p></figure>'
    ).format(title, _WIDTH, _HEIGHT, title, Markup("").join(inner), keys)
