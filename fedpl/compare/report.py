"""The files and the closing table of a comparison."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fedpl.compare.plan import Entry
from fedpl.compare.statistics import compare
from fedpl.compare.tables import as_csv, as_latex, as_markdown, caption, rich_table
from fedpl.files import write_atomically
from fedpl.pictures.comparison_plot import method_dots


def write_report(out: Path, entries: Sequence[Entry], margin: float, console: Console) -> None:
    """Write comparison.json, .csv, .tex, .md and .png and print the table.

    Args:
        out: The comparison's directory.
        entries: Its runs, all finished.
        margin: From which loss of accuracy on, as a fraction, a client counts as harmed.
        console: Where to print.
    """
    folders: dict[str, dict[int, Path]] = {}
    for entry in entries:
        folders.setdefault(entry.method, {})[entry.seed] = entry.folder
    comparison = compare(folders, margin)
    comparison.write(out)
    write_atomically(out / "comparison.csv", as_csv(comparison).encode())
    write_atomically(out / "comparison.tex", as_latex(comparison).encode())
    write_atomically(out / "comparison.md", as_markdown(comparison).encode())
    method_dots(comparison).savefig(out / "comparison.png", dpi=110)
    console.print(rich_table(comparison))
    console.print(caption(comparison), highlight=False)
    console.print(Text(f"comparison: {out}/comparison.{{json,csv,tex,md,png}}"), soft_wrap=True)
