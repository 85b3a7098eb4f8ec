"""Tables about data: studies on domains and tasks, what preparing costs, partitions beside others'."""

import numpy as np

from benchmarks import halves as few_examples
from benchmarks import partitioners
from benchmarks.confirmation import tables as confirmed
from docs.made.results import FOLDER, read

__all__ = ["compared_partitions", "confirmation", "flan8_small", "halves", "preparing", "study"]


def study(name: str) -> str:
    """A comparison by ``benchmarks.domains``, with its sizes."""
    found = read(f"{name}.json")
    caps = {key: found["settings"][f"data.splitting.{key}"] for key in ("max_train", "max_test")}
    table = (FOLDER / f"{name}.md").read_text(encoding="utf-8").strip()
    return (
        f"{found['rows']:,} rows, of which a client trains on {caps['max_train']} and is tested on "
        f"{caps['max_test']} at most; {found['rounds']} rounds, {len(found['seeds'])} seeds.\n\n{table}"
    )


def flan8_small() -> str:
    """Methods on federated Flan, task by task, and what task vectors have in common."""
    found, table = read("flan8_small.json"), (FOLDER / "flan8_small.md").read_text(encoding="utf-8").strip()
    seeds = list(found["tasks"].values())
    names = ["floor", *(name for name in found["methods"] if all(name in seed for seed in seeds))]
    lines = [f"| ROUGE-1 of θ̄ | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for task in seeds[0]["floor"]:
        cells = (f"{100 * np.mean([seed[name][task] for seed in seeds]):.0f}" for name in names)
        lines.append(f"| {task} | {' | '.join(cells)} |")
    lines += [
        "",
        "| round | cosines of two tasks, mean ± sd over pairs | largest | smallest |",
        "|---|---|---|---|",
    ]
    for round in next(iter(found["cosines"].values())):
        by_seed = [seed[round] for seed in found["cosines"].values()]
        mean = {pair: float(np.mean([own[pair] for own in by_seed])) for pair in by_seed[0]}
        most, least = max(mean, key=mean.__getitem__), min(mean, key=mean.__getitem__)
        values = np.array(list(mean.values()))
        lines.append(
            f"| {round} | {values.mean():.2f} ± {values.std(ddof=1):.2f} "
            f"| {most}: {mean[most]:.2f} | {least}: {mean[least]:.2f} |"
        )
    return f"Seeds: {', '.join(map(str, found['seeds']))}.\n\n{table}\n\n" + "\n".join(lines)


def confirmation(part: str, texts: str = "requests") -> str:
    """A table of ``benchmarks.confirmation``."""
    return confirmed.table(read(confirmed.file_of(texts))["populations"], part)


def halves() -> str:
    """What halves of a client's examples agree on, beside those of others."""
    return few_examples.page(read("halves.json")["rows"]).strip()


def preparing() -> str:
    """Seconds and memory by part, before and after."""
    lines = [
        "| rows, file | | start | s of a core | read | split | encode | join | peak MB beyond the model "
        "| MB resident | MB kept |",
        "|---" * 11 + "|",
    ]
    for label, measured in read("preparing.json").items():
        for own in measured["files"]:
            cells = (
                f"{own['examples']:,}, {own['file']} ({own['megabytes']:.0f} MB)",
                f"{label}, {measured['commit']}",
                own["start"],
                f"{own['seconds']['processor']:.1f}",
                *(f"{own['parts'][part]:.1f}" for part in ("read", "split", "encode", "join")),
                f"{max(own['peaks'].values()) / 1e6:,.0f}",
                f"{own['resident'] / 1e6:,.0f}",
                f"{own['kept'] / 1e6:,.0f}" if own["kept"] else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def compared_partitions() -> str:
    """Ours beside those of flwr-datasets."""
    return partitioners.table(read("partitioners.json"))
