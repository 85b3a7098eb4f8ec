"""Runs `python -m fedpl.fit` in forked children that die by SIGKILL at a given instant; see test_resume.py.

Standard input: JSON with the arguments of each job and the seed of the instants. Standard output: JSON with a
line for each kill. The heavy parts are imported once, before the first fork; JAX starts no threads till then.
"""

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sklearn.metrics  # noqa: F401

import fedpl.runs.experiment
import fedpl.server.step
import fedpl.tracking.weights_and_biases  # noqa: F401
from fedpl.fit import main
from fedpl.server import Aggregator
from fedpl.training.alone.module import ClientModule
from fedpl.training.stacked.module import CohortModule


class Instants:
    """Counts instants before and after everything that matters, and dies at one of them."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0

    def here(self) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.here()
            result = inner(*args, **kwargs)
            self.here()
            return result

        setattr(owner, name, watched)


def child(argv: list[str], die_at: int, log: Path) -> tuple[int, int]:
    """Run once; how it ended (0: well, 9: killed) and how many instants it saw."""
    pipe = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            instants = Instants(die_at)
            for owner, name in (
                (os, "fsync"),
                (os, "replace"),
                (CohortModule, "training_step"),
                (ClientModule, "training_step"),
                (Aggregator, "update"),
            ):
                instants.watch(owner, name)
            code = main(argv)
            os.write(pipe[1], str(instants.count).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(pipe[1])
    with os.fdopen(pipe[0]) as file:
        seen = file.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), int(seen or 0)


def summary(folder: Path) -> dict[str, Any]:
    """What must be the same: everything but the seconds."""
    content = json.loads((folder / "summary.json").read_text())
    del content["seconds"]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        del record["seconds"]
    adapters = {
        str(path.relative_to(folder)): path.read_bytes().hex()
        for path in sorted((folder / "adapters").rglob("*.safetensors"))
    }
    return {"summary": content, "metrics": records, "adapters": adapters}


def run() -> None:
    asked = json.loads(sys.stdin.read())
    root = Path(asked["folder"])
    stream = random.Random(asked["seed"])
    for number, arguments in enumerate(asked["jobs"]):
        whole = root / f"whole-{number}"
        ended, instants = child([*arguments, f"--run_dir={whole}"], 0, root / "log")
        assert ended == 0, (root / "log").read_text()
        for kill in range(asked["kills"]):
            folder = root / f"killed-{number}-{kill}"
            # One instant in each part of the run; the run that goes on is killed once more, now and then.
            at = int(instants * (kill + stream.random()) / asked["kills"]) + 1
            again = [stream.randrange(1, instants // 2)] if kill % 5 == 0 else []
            ended = []
            for die_at in (at, *again, 0):
                # Before the directory has its name there is nothing to go on with: the run starts.
                go_on = [f"--resume={folder}"] if folder.exists() else [*arguments, f"--run_dir={folder}"]
                ended.append(child(go_on, die_at, root / "log")[0])
            equal = ended[-1] == 0 and summary(folder) == summary(whole)
            print(
                json.dumps({"job": number, "at": at, "of": instants, "ended": ended, "equal": equal}),
                flush=True,
            )


if __name__ == "__main__":
    run()
