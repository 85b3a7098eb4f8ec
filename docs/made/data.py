"""Tables about data: studies on domains and tasks, what preparing costs, partitions beside others'."""

from benchmarks import partitioners
from benchmarks.confirmation import tables as confirmed
from docs.made.results import FOLDER, read

__all__ = ["compared_partitions", "confirmation", "preparing", "study"]


def study(name: str) -> str:
    """A comparison by ``benchmarks.domains``, with its sizes."""
    found = read(f"{name}.json")
    caps = {key: found["settings"][f"data.splitting.{key}"] for key in ("max_train", "max_test")}
    table = (FOLDER / f"{name}.md").read_text(encoding="utf-8").strip()
    return (
        f"{found['rows']:,} rows, of which a client trains on {caps['max_train']} and is tested on "
        f"{caps['max_test']} at most; {found['rounds']} rounds, {len(found['seeds'])} seeds.\n\n{table}"
    )


def confirmation(part: str) -> str:
    """A table of ``benchmarks.confirmation``."""
    return confirmed.table(read("confirmation.json")["populations"], part)


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
