"""How the columns of a round's vectors are cut into panels, and who works on which."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from fedpl.records.layout import AdapterLayout, Entry
from fedpl.server.looking import Plan
from fedpl.server.ondisk import PANELS

_ROWS = 8  # of a client at once: what it received and sends, as they are looked at and written

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator


class Panel(NamedTuple):
    """Some columns.

    Attributes:
        columns: Where they are.
        plan: The step's plan for these columns alone.
    """

    columns: slice
    plan: Plan


class Share(NamedTuple):
    """One of several who share columns or rows: its number, from 0, and how many they are."""

    number: int = 0
    of: int = 1

    def part(self, whole: int) -> range:
        """Its part of so many, in a piece."""
        return range(self.number * whole // self.of, (self.number + 1) * whole // self.of)


def panels(plan: Plan, clients: int, size: int, share: Share) -> Iterator[Panel]:
    """Neighbouring columns, as many as fit; what the rule needs together is not cut.

    Args:
        plan: The rule, and the layout of all columns.
        clients: Rows of a matrix.
        size: Bytes of a matrix that are worked on at once.
        share: Whose panels are meant: those whose middle lies in its part of the columns.
    """
    own = share.part(plan.layout.size)
    for panel in _panels(plan, max(min(size // (4 * clients), -(-plan.layout.size // share.of)), 1)):
        if (panel.columns.start + panel.columns.stop) // 2 in own:
            yield panel


def _panels(plan: Plan, width: int) -> Iterator[Panel]:
    entries: list[Entry] = []
    for unit in _units(plan, width):
        if entries and unit[-1].stop - entries[0].start > width:
            yield _panel(plan, entries)
            entries = []
        entries += unit
    yield _panel(plan, entries)


def least_budget(rule: "Aggregator", layout: AdapterLayout, clients: int) -> int:
    """Bytes of task vectors and aggregates that must be in memory at a time, at least.

    Args:
        rule: A rule that can do with the disk.
        layout: All tensors.
        clients: As many as are worked on in a round.
    """
    key = _together(rule)
    units = [[1]] if key is None else [[e.size for e in unit] for _, unit in groupby(layout.entries, key)]
    if key is None and rule.subject.of(layout).centred:
        units.append([entry.size for entry in layout.entries if entry.kind == "head"])
    return 4 * max(PANELS * clients * max(map(sum, units)), _ROWS * layout.size)


def _together(rule: "Aggregator") -> Callable[[Entry], object] | None:
    """Blocks where their lengths count, modules where products of factors do; None: any columns."""
    if getattr(rule.combine, "match_norm", False):
        return attrgetter("block")
    if rule.combine.by_pair or rule.similarity.by_pair or rule.subject.space == "product":
        return attrgetter("module")
    return None


def _units(plan: Plan, width: int) -> Iterator[list[Entry]]:
    """What a rule needs together."""
    entries, key = plan.layout.entries, _together(plan.rule)
    if key is not None:
        yield from (list(unit) for _, unit in groupby(entries, key))
        return
    whole = [entry for entry in entries if plan.rule.subject.centred and entry.kind == "head"]
    for entry in entries[: len(entries) - len(whole)]:
        for start in range(entry.start, entry.stop, width):
            length = min(width, entry.stop - start)
            yield [replace(entry, name=f"{entry.name}:{start}", shape=(length,), start=start)]
    if whole:
        yield whole  # the last ones


def _panel(plan: Plan, entries: list[Entry]) -> Panel:
    first, stop = entries[0].start, entries[-1].stop
    own = tuple(replace(entry, start=entry.start - first) for entry in entries)
    group = {entry.name: i for i, group in enumerate(plan.groups) for entry in group}
    groups: list[list[Entry]] = [[] for _ in plan.groups]
    for entry in own:
        name = entry.name.rpartition(":")[0] or entry.name
        if name in group:
            groups[group[name]].append(entry)
    layout = AdapterLayout(own, plan.layout.scale)
    return Panel(slice(first, stop), plan._replace(layout=layout, own_groups=tuple(map(tuple, groups))))
