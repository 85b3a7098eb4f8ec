"""The files and the closing table of a comparison."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from fedpl.compare.latex import as_latex
from fedpl.compare.plan import Entry
from fedpl.compare.statistics import compare
from fedpl.compare.tables import as_csv, as_markdown, caption, pairs_csv, rich_table
from fedpl.config import Config
from fedpl.data.wording import counted
from fedpl.files import write_atomically
from fedpl.pictures.comparison_plot import method_dots, rounds_by_method
from fedpl.records.comparison import Comparison
from fedpl.records.rounds import read_rounds
from fedpl.terminal import print_table
from fedpl.tracking.gathered import gather

_FORMATS = ("png", "pdf", "svg")


def write_report(
    out: Path, entries: Sequence[Entry], margin: float, columns: Sequence[str], console: Console
) -> None:
    """Write the comparison's files and pictures, log it at W&B beside its runs, and print the table.

    Args:
        out: The comparison's directory.
        entries: Its runs, all finished.
        margin: From which loss of accuracy on, as a fraction, a client counts as harmed.
        columns: Of the table and of LaTeX's; none: the usual ones.
        console: Where to print.
    """
    folders: dict[str, dict[int, Path]] = {}
    for entry in entries:
        folders.setdefault(entry.method, {})[entry.seed] = entry.folder
    comparison = compare(folders, margin)
    comparison.write(out)
    texts = {
        "comparison.csv": as_csv(comparison),
        "comparison.tex": as_latex(comparison, about([entry.config for entry in entries]), columns),
        "comparison.md": as_markdown(comparison),
        "comparison-pairs.csv": pairs_csv(comparison),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    pictures = []
    for name, figure in _figures(comparison, folders):
        for ending in _FORMATS:
            figure.savefig(out / f"{name}.{ending}", dpi=150)
            pictures.append(out / f"{name}.{ending}")
    print_table(console, rich_table(comparison, columns))
    console.print(Text(caption(comparison, columns)))
    console.print(Text(f"comparison: {out}/comparison.{{json,csv,tex,md,png,pdf,svg}}"), soft_wrap=True)
    files = [out / Comparison.FILE, *(out / name for name in texts), *pictures]
    wandb, rows = entries[0].config.tracking.wandb, _rows(comparison)
    if there := gather(wandb, "comparison", out, files, rows, headline(comparison)):
        console.print(Text(f"Weights & Biases: {there}"), soft_wrap=True)


def _figures(
    comparison: Comparison, folders: Mapping[str, Mapping[int, Path]]
) -> Iterator[tuple[str, Figure]]:
    yield "comparison", method_dots(comparison)
    records = {
        method: [read_rounds(folder / "metrics.jsonl") for folder in seeds.values()]
        for method, seeds in folders.items()
    }
    by_round = rounds_by_method(records, comparison.primary)
    if by_round is not None:
        yield "comparison-rounds", by_round


def about(configs: Sequence[Config]) -> str:
    """What all runs have in common, in words: model, data, local training."""
    first = configs[0]
    shared: dict[str, set[Any]] = {
        f"{Path(first.model.path).name}": {config.model.path for config in configs},
        f"LoRA of rank {first.lora.r}": {config.lora.r for config in configs},
        type(first.data).__name__: {repr(config.data) for config in configs},
        f"{counted(first.client.epochs, 'local epoch')}": {config.client.epochs for config in configs},
        f"learning rate {first.client.lr:g}": {config.client.lr for config in configs},
        f"batches of {first.client.batch_size}": {config.client.batch_size for config in configs},
    }
    return ", ".join(words for words, values in shared.items() if len(values) == 1)


def headline(comparison: Comparison) -> dict[str, float]:
    """Primary score and gain of each method and model, by name; what is not known is left out."""
    numbers = {}
    for method, entry in comparison.methods.items():
        for model in comparison.models:
            found, at = entry.of(model), f"methods/{method}/{model}"
            numbers[f"{at}/{comparison.primary.name}"] = found.scores[comparison.primary.name].mean
            if found.gain is not None:
                numbers[f"{at}/gain"] = found.gain.mean
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table's rows, as numbers."""
    rows = []
    for method, entry in comparison.methods.items():
        for model in comparison.models:
            found = entry.of(model)
            own = {name: value.mean for name, value in found.scores.items()}
            own |= {} if found.gain is None else {"gain": found.gain.mean}
            own |= {} if found.harmed is None else {"harmed": len(found.harmed)}
            own |= {} if found.rank is None else {"rank": found.rank}
            rows.append({"method": method, "model": model, **own})
    return rows
