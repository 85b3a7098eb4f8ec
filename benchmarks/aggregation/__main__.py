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
# The default job's own shape first.
GRID = ((12, 74_498), (8, 1_000_000), (32, 1_000_000), (128, 500_000), (512, 200_000), (2048, 50_000))
WIDE_GRID = tuple((n, d) for n in (4, 8, 12, 32, 64, 128, 512, 2048) for d in (75_000, 500_000, 4_000_000))
GPU_GRID = ((64, 4_000_000), (512, 1_000_000), (2048, 1_000_000), (8192, 1_000_000))
# Bytes for every number of X: three float32 matrices as large (98 GB for the last case). A card with less
# memory gets fewer columns.
_PER_NUMBER = 12
# The same on a CPU: X for JAX and for the host, in bfloat16, and up to five results.
_PER_NUMBER_CPU = 32
_AVX2 = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}

PARTS = ("grid", "jobs", "extras")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15, help="timed calls of each, in any order")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for everybody")
    parser.add_argument(
        "--avx2",
        action="store_true",
        help="code without AVX-512 of all (XLA's ready-made products choose by the CPU)",
    )
    parser.add_argument("--grid", nargs="*", metavar="N,D", help="cases; alone: all that fit")
    parser.add_argument(
        "--square", type=int, help="size of the square product that sets the limit: 4096; 16384 on a GPU"
    )
    parser.add_argument("--peer", nargs="*", default=[], metavar="SYSTEM=PYTHON", help="flower, pfl, fedjax")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="all by default")
    parser.add_argument("--skip-out-of-core", action="store_true", help="it writes 4 GB of temporary files")
    parser.add_argument("--profile", metavar="FOLDER", help="trace the last case there, by JAX's profiler")
    parser.add_argument("--name", help="of the result files; the device by default")
    return parser.parse_args()


def limit_threads(threads: int, avx2: bool = False) -> None:
    """Equal threads for everybody, JAX included: must come before any of them is imported."""
    if avx2:
        os.environ.update(_AVX2)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    # JAX would take three quarters of a GPU's memory, and torch is to work there too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # XLA takes a thread for each processor it may run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))


def main() -> None:
    """Runs everything and writes the results."""
    options = arguments()
    limit_threads(options.threads, options.avx2)
    import jax
    import threadpoolctl
    import torch
    from fedpl_kernels import use_blas_of

    from benchmarks.machine import describe

    from . import extras, jobs, plot, tables
    from .grid import run_case
    from .limits import measure
    from .peers import Peer
    from .timing import on_gpu

    torch.set_num_threads(options.threads)
    use_blas_of(torch)  # which is here anyway
    first = jax.devices()[0]
    device = first.device_kind if on_gpu() else "cpu"
    square = options.square or (16_384 if on_gpu() else 4096)
    grid = [tuple(map(int, case.split(","))) for case in options.grid or ()]
    if not grid and on_gpu():
        most = first.memory_stats()["bytes_limit"] // _PER_NUMBER
        grid = [(n, min(d, most // n // 100_000 * 100_000)) for n, d in GPU_GRID]
    if not grid and options.grid is not None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        grid = [(n, d) for n, d in WIDE_GRID if n * d * _PER_NUMBER_CPU < free]
    grid = grid or list(GRID)
    report: dict = {**describe(), "device": device, "threads": options.threads, "turns": options.turns}
    report["avx2"] = options.avx2
    pools = {pool["prefix"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    report["threads_of"] = pools | {"torch": torch.get_num_threads(), "xla": len(os.sched_getaffinity(0))}
    report["square"], parts = square, options.parts
    if "extras" in parts and not options.skip_out_of_core:  # first, while this process is small
        report["out_of_core"] = extras.out_of_core(options.turns, 1000, 1_000_000, 640 << 20)
    peers = [Peer(*peer.split("=", 1)) for peer in options.peer]
    report["peers"] = {peer.system: peer.version for peer in peers}
    limits, report["limits"] = measure(square, options.turns)
    report["cases"], report["failed"] = [], {}
    for n, d in grid if "grid" in parts else ():
        print(f"n = {n}, d = {d}", file=sys.stderr, flush=True)
        report["cases"] += run_case(n, d, options.turns, limits, peers, report["failed"])
    if options.profile:
        n, d = grid[-1]
        extras.profile(n, d, options.profile)
    if "jobs" in parts:
        report["layouts"] = jobs.layouts(options.turns, limits)
        report["updates"], report["dispatch"] = jobs.updates(options.turns), jobs.dispatch(options.turns)
    if "extras" in parts:
        report["lora"], report["loops"] = extras.lora(options.turns), extras.loops(options.turns)
        report["precision"], report["devices"] = extras.precision(), extras.devices()
    for peer in peers:
        peer.close()
    name = options.name or device.lower().replace(" ", "-")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"aggregation-{name}.json").write_text(json.dumps(report, indent=1))
    if report["cases"]:
        plot.draw(report, RESULTS / f"aggregation-{name}.png")
    print(tables.markdown(report))


if __name__ == "__main__":
    main()
