"""The tables of a run in Markdown; `python -m benchmarks.aggregation.tables FILE` prints them."""

import json
import sys
from pathlib import Path

from .limits import mode_of


def markdown(report: dict) -> str:
    """Grid, limits, and the questions beside it."""
    machine, limits = report["machine"], report["limits"]
    lines = [
        f"{report['device']}: {machine['cpu']}, {report['threads']} threads, {machine['memory_gib']} GiB, "
        f"commit {report['commit']}; float32 square product {limits['highest'] / 1e9:.0f} Gop/s, "
        f"bf16 {limits['bf16'] / 1e9:.0f}, copy {limits['copy_bytes'] / 1e9:.1f} GB/s, "
        f"triad {limits['triad_bytes'] / 1e9:.1f}; {report['turns']} turns in any order.",
        "",
        "| operation | n | d | contestant | median s | quartiles | GFLOP/s done | of peak | of its mode's "
        "| GB/s | of triad | error | extra MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {case['operation']} | {case['n']} | {case['d']:,} | {case['name']} | {case['median_s']:.3g} "
        f"| {spread(case)} | {case['flops_per_s'] / 1e9:.3g} | {case['of_peak']:.0%} "
        f"| {case['flops_per_s'] / limits[mode_of(case['name'])]:.0%} "
        f"| {case['bytes_per_s'] / 1e9:.3g} | {case['of_triad']:.0%} | {error(case)} "
        f"| {case['peak_extra_bytes'] / 1e6:.0f} |"
        for case in report["cases"]
    ]
    lines += [
        line for part in ("layouts", "updates", "dispatch") if part in report for line in jobs(report, part)
    ]
    if "lora" in report:
        lines += extras(report)
    lines += ["", *(f"{kernel} could not run: {why}" for kernel, why in report["failed"].items())]
    return "\n".join(lines)


def jobs(report: dict, part: str) -> list[str]:
    """Layouts, updates or single calls: a line for each way."""
    groups = (
        {"": report[part]}
        if part != "layouts"
        else {
            f"{found['layout']}, n {found['n']}, d {found['d']:,}: ": found["ways"] for found in report[part]
        }
    )
    lines = ["", f"| {part} | median ms | quartiles | of triad |", "|---|---|---|---|"]
    for place, ways in groups.items():
        for way, found in ways.items():
            quartiles = "–".join(f"{1000 * seconds:.3g}" for seconds in found["quartiles_s"])
            triad = f"{found['of_triad']:.0%}" if "of_triad" in found else ""
            lines.append(f"| {place}{way} | {1000 * found['median_s']:.3g} | {quartiles} | {triad} |")
    return lines


def extras(report: dict) -> list[str]:
    """The questions beside the grid."""
    lora, loops = report["lora"], report["loops"]
    lines = [
        "",
        f"LoRA products, n {lora['n']}, r {lora['r']}, d {lora['d']}: {lora['speedup']:.0f}x dense, ",
    ]
    lines[-1] += f"relative error {lora['relative_error']:.0e}."
    for name, ratio in loops["speedup"].items():
        lines.append(f"Gram, n {loops['n']}, d {loops['d']:,}: {ratio:.0f}x {name}.")
    if core := report.get("out_of_core"):
        lines.append(
            f"Out of core, n {core['n']}, d {core['d']:,}: {core['share_of_in_memory']:.0%} of in memory, "
            f"peak resident {core['peak_resident_bytes'] / 1e9:.2f} GB, difference {core['difference']:.0e}."
        )
    lines += ["", "| rows | policy | largest error | mean error |", "|---|---|---|---|"]
    lines += [
        f"| {e['rows']} | {e['policy']} | {e['max']:.1e} | {e['mean']:.1e} |" for e in report["precision"]
    ]
    return lines


def spread(case: dict) -> str:
    """Quartiles, in seconds."""
    return "–".join(f"{seconds:.3g}" for seconds in case["quartiles_s"])


def error(case: dict) -> str:
    """Of a contestant of this process; other systems' answers are checked on a sample only."""
    return "sample" if case["error"] is None else f"{case['error']:.0e}"


def short(report: dict) -> str:
    """The grid in a few columns, milliseconds, the best variant of each system."""
    cells: dict[tuple[str, int, int], dict[str, dict]] = {}
    for case in report["cases"]:
        cells.setdefault((case["operation"], case["n"], case["d"]), {})[case["name"]] = case
    told = any("known finite" in case["name"] for case in report["cases"])  # older reports have none
    heads = ["ms", "n", "d", "ours", *["ours, finite"] * told, "ours, bf16", "torch", "NumPy, SciPy"]
    heads += ["ours: of the peak", "ours: of triad"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (operation, n, d), found in cells.items():
        ours = found["ours highest" if operation == "gram" else "ours onto base"]
        half = found.get("ours bf16") or found["ours onto base bf16"]
        full = {name: case["median_s"] for name, case in found.items() if mode_of(name) == "highest"}
        best = [
            min((seconds for name, seconds in full.items() if name.split()[0] in system), default=None)
            for system in (("torch",), ("numpy", "scipy"))
        ]
        finite = found.get("ours onto base, known finite", {"median_s": None})
        times = [ours["median_s"], *[finite["median_s"]] * told, half["median_s"], *best]
        shown = " | ".join("–" if seconds is None else f"{1000 * seconds:.3g}" for seconds in times)
        lines.append(
            f"| {operation} | {n} | {d:,} | {shown} | {ours['of_peak']:.0%} | {ours['of_triad']:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    print(short(found), markdown(found), sep="\n\n")
