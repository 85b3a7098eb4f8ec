"""python -m benchmarks.aggregation: how fast, how exact, how near to the machine's own limit.

Runs on the CPU, or on the GPU that JAX finds (torch then works there too; other systems' kernels are left
out, they are for CPUs). Writes benchmarks/results/aggregation-DEVICE.json and .png.
"""

import argparse
import json
import os
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"
GRID = ((8, 1_000_000), (32, 1_000_000), (128, 500_000), (512, 200_000), (2048, 50_000))
GPU_GRID = ((64, 4_000_000), (512, 1_000_000), (2048, 1_000_000), (8192, 1_000_000))
# Bytes for every number of X: three float32 matrices as large (98 GB for the last case). A card with less
# memory gets fewer columns.
_PER_NUMBER = 12


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5, help="timed calls of each contestant (median)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for everybody")
    parser.add_argument("--grid", nargs="*", metavar="N,D", help="cases instead of the default grid")
    parser.add_argument(
        "--square", type=int, help="size of the square product that sets the limit: 4096; 16384 on a GPU"
    )
    parser.add_argument("--peer", nargs="*", default=[], metavar="SYSTEM=PYTHON", help="flower, pfl, fedjax")
    parser.add_argument("--skip-out-of-core", action="store_true", help="it writes 4 GB of temporary files")
    parser.add_argument("--profile", metavar="FOLDER", help="trace the last case there, by JAX's profiler")
    parser.add_argument("--name", help="of the result files; the device by default")
    return parser.parse_args()


def limit_threads(threads: int) -> None:
    """Equal threads for everybody, JAX included: must come before any of them is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    # JAX would take three quarters of a GPU's memory, and torch is to work there too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))


def main() -> None:
    """Runs everything and writes the results."""
    options = arguments()
    limit_threads(options.threads)
    import jax

    from benchmarks.machine import describe

    from . import extras, plot, tables
    from .grid import run_case
    from .limits import limits
    from .peers import Peer
    from .timing import on_gpu

    first = jax.devices()[0]
    device = first.device_kind if on_gpu() else "cpu"
    square = options.square or (16_384 if on_gpu() else 4096)
    grid = [tuple(map(int, case.split(","))) for case in options.grid or ()]
    if not grid and on_gpu():
        most = first.memory_stats()["bytes_limit"] // _PER_NUMBER
        grid = [(n, min(d, most // n // 100_000 * 100_000)) for n, d in GPU_GRID]
    grid = grid or list(GRID)
    report: dict = {**describe(), "device": device, "threads": options.threads, "turns": options.turns}
    report["square"] = square
    if not options.skip_out_of_core:  # first, while this process is small
        report["out_of_core"] = extras.out_of_core(options.turns, 1000, 1_000_000, 640 << 20)
    peers = [Peer(*peer.split("=", 1)) for peer in options.peer]
    report["peers"] = {peer.system: peer.version for peer in peers}
    report["limits"] = limits(square, options.turns)
    report["cases"], report["failed"] = [], {}
    for n, d in grid:
        print(f"n = {n}, d = {d}", file=sys.stderr, flush=True)
        report["cases"] += run_case(n, d, options.turns, square, peers, report["failed"])
    if options.profile:
        n, d = grid[-1]
        extras.profile(n, d, options.profile)
    report |= {
        "lora": extras.lora(max(options.turns, 15)),
        "loops": extras.loops(options.turns),
        "precision": extras.precision(),
        "devices": extras.devices(),
    }
    for peer in peers:
        peer.close()
    name = options.name or device.lower().replace(" ", "-")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"aggregation-{name}.json").write_text(json.dumps(report, indent=1))
    plot.draw(report, RESULTS / f"aggregation-{name}.png")
    print(tables.markdown(report))


if __name__ == "__main__":
    main()
