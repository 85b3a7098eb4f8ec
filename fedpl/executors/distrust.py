"""What the server asks of what a site of another organisation sent, before it computes with it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedpl.executors.letters import Joining
from fedpl.records.layout import AdapterLayout, Entry
from fedpl.records.messages import Census, Member, Report, Seconds, Work
from fedpl.records.scores import Metric


def fits(joining: Any) -> bool:
    """Whether what a site says of itself is of the kinds that it has to be."""
    if not isinstance(joining, Joining) or not isinstance(joining.census, Census):
        return False
    census, words = joining.census, (joining.site, joining.start, joining.base, joining.settings)
    if not _tuple_of(census.metrics, Metric) or not _tuple_of(census.members, Member):
        return False
    if not isinstance(census.layout, AdapterLayout) or not _tuple_of(census.layout.entries, Entry):
        return False
    names = {metric.name for metric in census.metrics}
    return (
        all(isinstance(word, str) and word for word in words)
        and isinstance(joining.shifts, bool)
        and isinstance(census.pairs, bool)
        and isinstance(census.place, str)
        and _tuple_of(census.labels, str)
        and _number(census.layout.scale)
        and all(_tuple_of(entry.shape, int) and _whole(entry.start) for entry in census.layout.entries)
        and all(
            all(isinstance(word, str) for word in (own.client, own.origin, own.group))
            and _whole(own.examples)
            and (own.floor is None or _scores(own.floor, names))
            for own in census.members
        )
    )


def check_report(report: Any, asked: Mapping[str, Work], metrics: tuple[Metric, ...]) -> str:
    """What is wrong with what a site sent as a client's report; empty: nothing.

    The server goes on to compute with it, and a site may send anything. What its task vector holds is vetted
    like everybody's.
    """
    if not isinstance(report, Report):
        return f"sent {type(report).__name__}, expected a report"
    if report.client not in asked:
        return "sent a report of a client that was not asked"
    names = {metric.name for metric in metrics}
    right = (
        isinstance(report.vector, np.ndarray)
        and _whole(report.examples)
        and _whole(report.steps)
        and _number(report.loss)
        and isinstance(report.scores, Mapping)
        and all(_scores(one, names) for one in report.scores.values())
        and isinstance(report.seconds, Seconds)
        and all(_number(one) and one >= 0 for one in report.seconds)
        and isinstance(report.memory, str)
        and (report.choice is None or _whole(report.choice))
        and isinstance(report.late, bool)
        and _whole(report.attempt)
        and (report.halves is None or (_number(report.halves) and abs(report.halves) <= 1.001))
    )
    if not right:
        return "sent a report that is none: a value is of another kind"
    received = asked[report.client].received
    several = 0 if received.ndim == 1 else len(received)
    if (report.choice is None) != (not several) or (report.choice or 0) >= max(several, 1):
        return f"says that it chose model {report.choice} of {several}"
    return ""


def scores_of(value: Any, clients: tuple[str, ...], metrics: tuple[Metric, ...]) -> Mapping[str, Any] | None:
    """Scores by client as a site sent them; None: it is something else, or of other clients."""
    names = {metric.name for metric in metrics}
    if not isinstance(value, Mapping) or not set(value) <= set(clients):
        return None
    return value if all(_scores(one, names) for one in value.values()) else None


def _scores(value: Any, names: set[str]) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and set(value) <= names
        and all(map(_number, value.values()))
    )


def _tuple_of(value: Any, kind: type) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, kind) for one in value)


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isinf(value)
