"""``python -m benchmarks.growth.killed``: a run of 4 GB on disk that is killed, against one that is not.

2,000 clients × 500,000 numbers through two rounds with 512 MB of them in memory; only training is made up.
The second run is killed (SIGKILL) at even distances of the time that the first one took, and gone on with.
Aggregates, states, matrices and scores of the two have to be equal, bit for bit.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.numpy import load_file

from benchmarks.growth.population import StandIn
from benchmarks.machine import describe
from fedpl.cli import make_parser, read
from fedpl.files import write_json
from fedpl.runs import experiment
from fedpl.runs.prepared import Prepared
from fedpl.runs.resume import saved_configuration

RESULTS = Path(__file__).parents[1] / "results" / "growth-killed.json"
# States, aggregates, similarity and weights, scores of every round; not what holds times or paths.
COMPARED = ("state/*.npy", "state/*.safetensors", "matrices/*.npy", "metrics.jsonl")


def run(folder: Path, clients: int, params: int, options: Sequence[str]) -> None:
    """Begin a run, or go on with it."""
    begun = (folder / "config.yaml").is_file()
    arguments = ["--rounds=2", f"--run_dir={folder}", "--baselines=[]", "--tracking.plots=false"]
    arguments += ["--tracking.wandb.mode=disabled", "--tracking.progress=false", *options]
    config = saved_configuration(folder) if begun else read(make_parser("fit", ""), arguments)
    prepared = Prepared(StandIn(clients, params))
    with Path(os.devnull).open("w") as nowhere:
        experiment.run(config, Console(file=nowhere), resume=folder if begun else None, prepared=prepared)


def start(folder: Path, clients: int, params: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """The same in a process of its own, on one thread."""
    command = [sys.executable, "-m", "benchmarks.growth.killed", "--only", str(folder)]
    command += ["--clients", str(clients), "--params", str(params), *options]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})


def digests(folder: Path) -> dict[str, str]:
    """Of each file that is compared, by name."""
    found = {}
    for pattern in COMPARED:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                digest = hashlib.blake2b()
                for part in _parts(path):
                    digest.update(part)
                found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


def _parts(path: Path) -> Iterator[bytes]:
    """What a file holds, without how long it took."""
    if path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            kept = {name: value for name, value in json.loads(line).items() if "seconds" not in name}
            yield json.dumps(kept, sort_keys=True).encode()
    elif path.suffix == ".safetensors":
        for name, value in sorted(load_file(path).items()):
            yield from (name.encode(), str(value.dtype).encode(), value.tobytes())
    else:
        with path.open("rb") as file:
            while part := file.read(2**24):
                yield part


def killed(root: Path, clients: int, params: int, kills: int, options: Sequence[str]) -> dict[str, Any]:
    """Both runs, and whether they are equal."""
    begin = time.monotonic()
    if start(root / "whole", clients, params, options).wait():
        raise RuntimeError("the run that nobody kills has failed")
    whole = time.monotonic() - begin
    expected = digests(root / "whole")
    shutil.rmtree(root / "whole")
    instants, begin = [], time.monotonic()
    for kill in range(kills):
        process = start(root / "killed", clients, params, options)
        try:
            process.wait(whole / (kills + 1) * (1.3 if kill else 1.0))  # a second start has to find its place
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        states = root / "killed" / "state"
        done = len(list(states.glob("round-*.safetensors")))
        journal = sum(path.stat().st_size for path in states.glob("open/*"))
        instants.append({"rounds_done": done, "bytes_of_the_open_round": journal})
        print(f"killed after {time.monotonic() - begin:.0f} s: {instants[-1]}", flush=True)
    if start(root / "killed", clients, params, options).wait():
        raise RuntimeError("the run that was killed has failed")
    found = digests(root / "killed")
    different = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    return {
        "clients": clients,
        "params": params,
        "options": list(options),
        "seconds": whole,
        "kills": instants,
        "files": len(expected),
        "different": different,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run both, write the JSON; 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth.killed", description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--params", type=int, default=500_000)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--only", type=Path, help="begin or go on with a run in this folder, and nothing else"
    )
    arguments, options = parser.parse_known_args(argv)
    options = options or ["--method=fedbip", "--server.storage=disk"]
    if arguments.only:
        run(arguments.only, arguments.clients, arguments.params, options)
        return 0
    with tempfile.TemporaryDirectory(prefix="killed-") as root:
        found = killed(Path(root), arguments.clients, arguments.params, arguments.kills, options)
    write_json(arguments.out, describe() | found)
    print(f"{found['files']} files, different: {found['different'] or 'none'}")
    return bool(found["different"])


if __name__ == "__main__":
    sys.exit(main())
