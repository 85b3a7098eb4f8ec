"""Tables of what things cost, from ``benchmarks/results``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.aggregation import tables
from benchmarks.kills.__main__ import table
from docs.made.results import named, read

__all__ = [
    "cohorts",
    "compiled",
    "decoding",
    "few",
    "flower",
    "flower_said",
    "growth",
    "kernels",
    "kernels_beside",
    "killed_on_disk",
    "kills",
    "many_clients",
    "sharded",
    "step_memory",
]
_WAYS = ("PEFT, fresh Trainer each", "PEFT, bare loop", "Flower simulation")


def cohorts() -> str:
    """16 clients at once beside the ways to train them one after another."""
    lines = [
        f"| threads | batch × tokens | clients/s, one cohort | {' | '.join(_WAYS)} | of the frozen model's |",
        "|---" * (len(_WAYS) + 4) + "|",
    ]
    for name in ("cohort-2-threads.json", "cohort.json"):
        grid = read(name)["grid"]
        for shape in grid["shapes"]:
            ways = shape["ways"]
            if shape["clients"] == 16:
                lines.append(f"| {grid['threads']} | {shape['batch']} × {shape['tokens']} | {_rates(ways)} |")
    return "\n".join(lines)


def _rates(ways: Mapping[str, Any]) -> str:
    own = ways["cohorts of 16"]
    rates = [ways[way]["clients_per_s"] if way in ways else None for way in _WAYS]
    cells = ["–" if one is None else f"{one:.3g} ({own['clients_per_s'] / one:.1f}x)" for one in rates]
    return " | ".join([f"{own['clients_per_s']:.3g}", *cells, f"{own['of_frozen_limit']:.0%}"])


def many_clients() -> str:
    """One round of a thousand clients."""
    found = read("cohort.json")["many clients"]
    return (
        f"{found['clients']:,} clients with 16 examples each, in cohorts of {found['cohort']}: "
        f"{found['seconds_per_client']:.2f} s a client, and {found['peak_bytes_beyond'] / 1e9:.2f} GB beyond "
        f"the {found['matrix_bytes'] / 1e9:.2f} GB of their task vectors."
    )


def decoding() -> str:
    """Answers of a language model for many clients at once."""
    found = read("decoding.json")
    lines = [
        f"{found['model']}, {found['clients']} clients × {found['prompts']} prompts, up to {found['tokens']} "
        "tokens:",
        "",
        "| way | CPU seconds one by one | stacked | ratio | same answers |",
        "|---|---|---|---|---|",
    ]
    for way, one in found["results"].items():
        lines.append(
            f"| {way} | {one['cpu_seconds_one_by_one']:.1f} | {one['cpu_seconds_stacked']:.1f} "
            f"| {one['ratio']:.1f}x | {one['same_answers']:.0%} |"
        )
    return "\n".join(lines)


def step_memory() -> str:
    """What a vocabulary takes."""
    found = read("step_memory.json")
    step, sizes, taken = found["step"], found["vocabularies"], found["bytes"]
    (whole, few) = (
        f"{taken[name] / 2**30:.2f} GiB with {sizes[name]:,} tokens" for name in ("whole", "bytes")
    )
    return (
        f"One step of {step['clients']} clients × {step['rows']} rows of {step['tokens']} tokens, of which "
        f"{step['answer']} are answers, through the shape of SmolLM2-135M takes beyond the loaded model "
        f"{whole}, and {few}: {found['ratio']:.2f} times as much."
    )


_USUAL = ("--method=", "--server.storage=memory", "--participation.fraction=1.0", "--rounds=")


def growth(part: str) -> str:
    """What rounds cost beside training, by the number of clients: the third round's seconds."""
    return _runs(
        part,
        (
            "seconds of the last round beside training",
            "the server's own",
            "peak: clients × parameters × 4 bytes",
        ),
        lambda run, last: (
            f"{last['beside_training']:.2f}",
            f"{last['seconds']['server']:.2f}",
            f"{max(run['peaks'].values()):.2f}",
        ),
    )


def few(part: str) -> str:
    """Runs of which few clients take part in a round: what the whole process held, and what it wrote."""
    return _runs(
        part,
        ("MB resident at most", "MB written in the last round (journal too)"),
        lambda run, last: (
            f"{run['resident'] / 1e6:,.0f}",
            f"{sum(last['written'].values()) / 1e6:,.0f}",
        ),
    )


def _runs(part: str, heads: Sequence[str], cells: Callable[[Any, Any], Sequence[str]]) -> str:
    """Runs of a part of growth.json, with cells from a run and its last round."""
    lines = [
        f"| clients | parameters | method | options | {' | '.join(heads)} |",
        "|---" * (4 + len(heads)) + "|",
    ]
    found = read("growth.json")
    for run in found[named(found, part)]["runs"]:
        options = " ".join(option for option in run["options"] if not option.startswith(_USUAL))
        lines.append(
            f"| {run['clients']:,} | {run['params']:,} | `{run['method']}` | `{options}` "
            f"| {' | '.join(cells(run, run['rounds'][-1]))} |"
        )
    return "\n".join(lines)


def flower() -> str:
    """What was tried with sites behind Flower."""
    found = read("flower.json")["checks"]
    rows = [
        f"| {_TRIED[name]} | {'yes' if one['holds'] else 'no'} | {one['said']} |"
        for name, one in found.items()
    ]
    return "\n".join(["| what | holds | measured |", "|---|---|---|", *rows])


def flower_said() -> str:
    """What the guide's own run printed on the server."""
    return "\n".join(["```text", *read("flower.json")["output"], "```"])


_TRIED = {
    "equal": "state, task vectors and adapters are those of a run in one process, bit for bit",
    "halves": "the same with FedBip-H, whose clients train on halves of their examples too",
    "no_data": "the server's processes have no table, no weights and no torch open",
    "quick": "a message costs less than a second at a site, beside training and scoring",
    "site_killed": "SIGKILL of a site in the second round",
    "app_killed": "SIGKILL of the ServerApp in the second round",
    "node_killed": "SIGKILL of a SuperNode in the second round",
    "link_killed": "SIGKILL of SuperLink and ServerApp in the second round",
    "refused": "a site that differs is refused by name",
}


def kills() -> str:
    """Runs that were killed, by the phase in which it happened."""
    return table(read("kills.json"))


def killed_on_disk() -> str:
    """A run of long vectors on disk that was killed, beside one that was not."""
    found = read("growth-killed.json")
    moments = ((kill["rounds_done"] + 1, kill["bytes_of_the_open_round"] / 1e9) for kill in found["kills"])
    when = " and ".join(f"in round {round} with {size:.1f} GB in its journal" for round, size in moments)
    different = ", ".join(found["different"]) or "none"
    return (
        f"{found['clients']:,} clients × {found['params']:,} numbers, `{' '.join(found['options'])}`, killed "
        f"{when}: of {found['files']} files of states, aggregates, matrices and scores these differ from the "
        f"other run's: {different}."
    )


def sharded() -> str:
    """The same run in memory, on disk and in shards."""
    found = read("growth-sharded.json")
    rows = [
        "| kept | the server, MB | each shard, MB | server step of the last round, s | furthest from memory |"
    ]
    rows.append("|---|---|---|---|---|")
    for name, own in found["storages"].items():
        shards = ", ".join(f"{size:,}" for size in own["shards_mb"]) or "–"
        apart = f"{own['apart']:.0e}" if own["apart"] else "–"
        cells = name, f"{own['server_mb']:,}", shards, f"{own['step_seconds'][-1]:.1f}", apart
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def kernels(machine: str) -> str:
    """The grid of Gram and mix, milliseconds."""
    return tables.short(read(f"aggregation-{machine}.json"))


def kernels_beside(part: str) -> str:
    """Layouts, whole updates or single calls."""
    report = read("aggregation-cpu.json")
    return "\n".join(tables.extras(report) if part == "extras" else tables.jobs(report, part)).strip()


def compiled() -> str:
    """Memory of programs that were compiled for a GPU and did not run."""
    found = read("aggregation-h200-program.json")
    lines = [
        f"Compiled for {found['compiled_for']} without one; n {found['n']:,}, d {found['d']:,}, a block of "
        f"{found['block']:,} columns:",
        "",
        "| operation | stored | mode | GB of arguments | GB beside them | GB in place |",
        "|---|---|---|---|---|---|",
    ]
    for one in found["programs"]:
        sizes = (one[key] / 1e9 for key in ("argument_bytes", "extra_bytes", "in_place_bytes"))
        cells = " | ".join(f"{size:.2f}" for size in sizes)
        lines.append(f"| {one['operation']} | {one['stored']} | {one['mode']} | {cells} |")
    return "\n".join(lines)
