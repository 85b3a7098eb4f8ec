"""``python -m benchmarks.kills``: does a run that is killed again and again end as if it had not been?

Every job runs once without interruption. Then it is killed by SIGKILL, with all its processes, at instants
drawn from the seed: half of them moments of its whole length, half of them right before a change of a file.
It is resumed, killed again while it resumes, trains, writes, closes or draws, until it ends; what it leaves
is compared bit for bit with the first run, file by file, apart from seconds and W&B's own files. Some
minutes for 100 kills on two cores; exit code 1 if anything differs.
"""

import os

# Threads would not survive a fork; they would start when torch and JAX are imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.kills.attempt import PHASES, forked
from benchmarks.kills.jobs import JOBS, arguments, make_model
from benchmarks.kills.series import Series, series
from benchmarks.machine import describe
from fedpl.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "kills.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Kill the jobs, print the table, write the JSON; 1 if a run did not end as it should."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS), metavar="JOB")
    parser.add_argument("--kills", type=int, default=100, help="of all jobs together, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    share = -(-options.kills // len(options.jobs))
    root = Path(tempfile.mkdtemp(prefix="kills-")).resolve()
    # What one child has compiled the others take from there.
    jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    forked(lambda: make_model(root / "model"))
    found: dict[str, Series] = {}
    for job in options.jobs:
        folder = root / job
        folder.mkdir()
        stream = random.Random(f"{options.seed} {job}")
        found[job] = series(arguments(job, root / "model"), share, stream, folder)
        print(f"{job}: {_line(found[job])}", flush=True)
    results = describe() | {"seed": options.seed} | _plain(found)
    write_json(options.output, results)
    print(f"\n{table(results)}\n")
    failed = any(own.failures for own in found.values())
    if failed:
        print(f"the runs that failed and their logs are below {root}")
    else:
        shutil.rmtree(root)
    return int(failed)


def _plain(found: Mapping[str, Series]) -> dict[str, Any]:
    """What was found as JSON: all jobs together, then each."""
    phases = {phase: sum(own.phases.get(phase, 0) for own in found.values()) for phase in PHASES}
    names = ("kills", "resumes", "runs")
    together = {name: sum(getattr(own, name) for own in found.values()) for name in names}
    equal = all(not own.failures for own in found.values())
    return {**together, "equal": equal, "phases": phases, "jobs": {j: s._asdict() for j, s in found.items()}}


def table(results: Mapping[str, Any]) -> str:
    """Kills of every job by the phase in which they fell, and whether all its runs ended equal."""
    lines = [f"| job | kills | resumes | runs | {' | '.join(PHASES)} | equal |"]
    lines.append("|---" * (len(PHASES) + 5) + "|")
    for job, own in {**results["jobs"], "together": results}.items():
        counts = [own[name] for name in ("kills", "resumes", "runs")]
        counts += [own["phases"].get(phase, 0) for phase in PHASES]
        equal = own.get("equal", not own.get("failures"))
        lines.append(f"| {job} | {' | '.join(map(str, counts))} | {'yes' if equal else 'NO'} |")
    return "\n".join(lines)


def _line(own: Series) -> str:
    """A job in one line, and what failed."""
    said = f"{own.kills} kills, {own.resumes} resumes, {own.runs} runs"
    return said + "".join(f"\n  {failure}" for failure in own.failures or ("all equal",))


if __name__ == "__main__":
    raise SystemExit(main())
