"""``python -m benchmarks.growth``: seconds, bytes and memory of a run's rounds beside training.

The real loop, server, checkpoints, records, pictures and W&B offline, three rounds; only training is made up.
Each size and method runs in a process of its own, on one thread of torch. Results are kept under a label
(`--label before`), and those of other labels stay in the file.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import describe
from fedpl.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "growth.json"


class Case(NamedTuple):
    """A run."""

    clients: int
    params: int
    method: str
    plots: bool = True
    storage: str = "memory"
    fraction: float = 1.0
    rounds: int = 3


SPEED = (Case(500, 20_000, "fedbip"), Case(2000, 20_000, "fedbip"), Case(2000, 20_000, "fedavg"))
# Few clients with long vectors: what is in proportion to clients × parameters stands out from all the rest.
MEMORY = tuple(
    Case(200, 500_000, method, plots=False)
    for method in ("fedbip", "fedbip_g", "clusters", "pfedgraph", "ifca", "fedsa")
)
# Of 20,000 clients 400 take part in a round: what the others cost.
FEW = tuple(Case(20_000, 10_000, method, fraction=0.02) for method in ("fedbip", "fedavg"))
# Twice 4 GB, of which no process may hold more than 1.5 GiB in memory of its own.
DISK = tuple(
    Case(*size, "fedbip", plots=False, storage="disk") for size in ((1000, 1_000_000), (2000, 500_000))
)
BOUND = 1536 * 2**20
# The same, of which 512 MB are in memory at a time: what the process holds of all kinds, libraries too.
BUDGET = (Case(2000, 500_000, "fedbip", plots=False, storage="disk", rounds=2),)
LARGE = (Case(10_000, 75_000, "fedbip"),)


PARTS = {"speed": SPEED, "memory": MEMORY, "few": FEW, "disk": DISK, "budget": BUDGET}


def measured(case: Case, seconds: float) -> dict[str, Any]:
    """What the program found, or why it found nothing."""
    command = [sys.executable, "-m", "benchmarks.growth.program", str(case.clients), str(case.params)]
    command += [f"--method={case.method}", f"--tracking.plots={str(case.plots).lower()}"]
    command += [f"--server.storage={case.storage}", f"--participation.fraction={case.fraction}"]
    command += [f"--rounds={case.rounds}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    asked = {"clients": case.clients, "params": case.params, "method": case.method}
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
            preexec_fn=_bounded if case in DISK else None,
        )
    except subprocess.TimeoutExpired:
        return {**asked, "failed": f"not done after {seconds:g} s"}
    if ended.returncode:
        return {
            **asked,
            "failed": (ended.stderr.strip().splitlines() or [f"ended by {ended.returncode}"])[-1],
        }
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found


def _bounded() -> None:
    """What is not read from files, stacks of threads included, which are as large as they may become."""
    resource.setrlimit(resource.RLIMIT_STACK, (2**20, 2**20))
    resource.setrlimit(resource.RLIMIT_DATA, (BOUND, BOUND))


def line(found: dict[str, Any]) -> str:
    """A run in one line: the last round but one, as the last also writes the result."""
    name = f"{found['clients']:,} × {found['params']:,} {found['method']}"
    if "failed" in found:
        return f"{name}: {found['failed']}"
    unit, own = found["clients"] * found["params"] * 4, found["rounds"][-2]
    parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in own["seconds"].items())
    written = sum(size for part, size in own["written"].items() if part != "journal") / unit
    return (
        f"{name}: {own['beside_training']:.1f} s a round beside training ({parts}); "
        f"{written:.2f} n·d·4 written beside the journal; peak {max(found['peaks'].values()):.2f} n·d·4, "
        f"resident {found['resident'] / 1e6:,.0f} MB at most; "
        f"summary.json {found['files']['summary.json'] / 1e6:.2f} MB"
    )


def run(cases: Iterable[Case], seconds: float) -> list[dict[str, Any]]:
    """Every case, said as it ends."""
    found = []
    for case in cases:
        found.append(measured(case, seconds))
        print(line(found[-1]), flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cases, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=["speed", "memory"])
    parser.add_argument(
        "--large", action="store_true", help="also 10,000 clients × 75,000: 24 GiB, 15 GB of disk"
    )
    parser.add_argument("--label", default="after", help="under which the results are kept")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a run is given up")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    cases = [case for part in arguments.parts for case in PARTS[part]]
    cases += LARGE if arguments.large else ()
    kept = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    machine, new = describe(), run(cases, arguments.limit)
    own = kept.get(arguments.label, {})
    if own.get("commit") != machine["commit"]:  # what was measured of other code is not shown beside it
        own = {}
    done = {(one["clients"], one["params"], one["method"]) for one in new}
    old = [one for one in own.get("runs", []) if (one["clients"], one["params"], one["method"]) not in done]
    write_json(arguments.out, {**kept, arguments.label: {**machine, "runs": [*old, *new]}})


if __name__ == "__main__":
    main()
