"""What onboarding says: a table of newcomers, and where their adapters lie."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpl.files import quoted
from fedpl.records.newcomer import Newcomer
from fedpl.terminal import print_table

_SHOWN, _NAMED = 40, 3


def say(found: Sequence[Newcomer], run: Path, console: Console) -> None:
    """Print the table and the folders.

    Args:
        found: The newcomers, at least one.
        run: The run directory.
        console: Where to print.
    """
    print_table(console, _table(found))
    first = found[0]
    for newcomer in (one for one in found if not one.neighbours):
        console.print(
            Text(f"'{newcomer.client}': nobody's task vectors are like its own: it keeps to itself"),
            soft_wrap=True,
        )
    if first.epsilon is not None:
        console.print(f"privacy: ε of each newcomer's data is {first.epsilon:.3g}", highlight=False)
    where = run / "newcomers"
    console.print(Text(f"adapters ({first.served}): {where}"), soft_wrap=True)
    call = f"fedpl.load({str(run)!r}, {first.client!r}, newcomer=True)"
    console.print(Text(f"load one: {call}, from {where / quoted(first.client)}"), soft_wrap=True)


def _table(found: Sequence[Newcomer]) -> Table:
    first, metric = found[0], found[0].metrics[0]
    went = f"round {first.rounds}" if first.rounds == 1 else f"rounds 1 to {first.rounds}"
    base = "from θ₀" if first.begun is None else f"from where {first.begun.run} had ended"
    began = base if first.start == "base" else "from its neighbours' last aggregates"
    title = f"Newcomers to {first.method}, test {metric.title}; {began}, through {went}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("newcomer")
    for name in ("examples", "local only", "aggregated", "tuned", "floor"):
        table.add_column(name, justify="right")
    table.add_column("takes most from")
    for one in found[:_SHOWN]:
        own = one.scores.get("test")
        scores = [] if own is None else [own.local, own.aggregated, own.tuned, own.floor]
        cells = [metric.shown(None if s is None else s[metric.name]) for s in scores] or ["–"] * 4
        most = list(one.neighbours.items())[:_NAMED]
        near = ", ".join(f"{client} {weight:.2f}" for client, weight in most) or "nobody"
        name = f"{one.client} (update)" if one.update else one.client
        table.add_row(Text(name), str(one.examples), *cells, Text(near))
    if len(found) > _SHOWN:
        table.caption = f"the first {_SHOWN} of {len(found)}; the others' newcomer.json say theirs"
    return table
