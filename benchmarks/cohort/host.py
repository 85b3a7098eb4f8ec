"""``python -m benchmarks.cohort.host``: what the host does for a step, beside the model, in process time.

With ``--against FOLDER`` another checkout of the repository takes turns with this one, each in a process of
its own on one thread, so that the machine's mood falls on both; whether both make the same is told, too.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fedpl.records.messages import Report
from fedpl.rounds.vetting import alike, vet
from fedpl.tasks.examples import Examples, Sequences
from fedpl.training.dropout import keep_mask, row_keys
from fedpl.training.partitions import Learner
from fedpl.training.stacked.packing import Limits, steps

ROOT = Path(__file__).parents[2]
CPU, GPU = Limits(2048, 32, 1), Limits(65_536, 4096, 8)


def packing(
    shortest: int, longest: int, limits: Limits, clients: int = 256, rows: int = 16
) -> Callable[[], Any]:
    """The tensors of a step in the middle of a round."""
    stream = random.Random(0)
    learners = []
    for client in range(clients):
        ids = [torch.arange(stream.randint(shortest, longest)) for _ in range(2 * rows)]
        examples = Examples(Sequences.of(ids), torch.arange(2 * rows) % 2, 0)
        order = [list(range(rows)), list(range(rows, 2 * rows))] * 500
        learners.append(Learner(examples, order, stream=7919 * client))
    taken = steps(learners, limits)

    def step() -> list[Any]:
        parts = next(taken).passes
        return [(*p.inputs.values(), p.targets, p.client, p.weight, p.key, p.even) for p in parts]

    return step


def hashing(*shape: int) -> Callable[[], Any]:
    """The mask of an activation."""
    keys = row_keys(5, 1, shape[0])
    return lambda: [(keep_mask(keys, 3, shape, 0.1),)]


def vetting(clients: int = 256, params: int = 75_000) -> Callable[[], Any]:
    """A round's task vectors."""
    rows = torch.randn(clients, params, generator=torch.Generator().manual_seed(0))
    reports = [Report(f"c{i}", row, 5, 1, 0.5, {}) for i, row in enumerate(rows)]
    return lambda: [(vet(reports, 100.0), alike(reports))]


WORKS: dict[str, Callable[[], Callable[[], Any]]] = {
    "pack 256 x 16, 16 to 64 tokens, GPU": lambda: packing(16, 64, GPU),
    "pack 256 x 16, 4 to 128 tokens, GPU": lambda: packing(4, 128, GPU),
    "pack 256 x 16, 12 to 16 tokens, CPU": lambda: packing(12, 16, CPU),
    "pack 256 x 16, 16 to 64 tokens, CPU": lambda: packing(16, 64, CPU),
    "pack 256 x 16, 4 to 128 tokens, CPU": lambda: packing(4, 128, CPU),
    "mask 16 x 12 x 32 x 32": lambda: hashing(16, 12, 32, 32),
    "mask 32 x 32 x 384": lambda: hashing(32, 32, 384),
    "mask 32 x 64 x 1536": lambda: hashing(32, 64, 1536),
    "vet 256 x 75,000": vetting,
}


def digest(made: list[tuple[Any, ...]]) -> str:
    """A name for what was made."""
    found = hashlib.blake2b(digest_size=8)
    for value in (value for values in made for value in values):
        if isinstance(value, torch.Tensor):
            found.update(
                f"{tuple(value.shape)} {value.dtype}".encode() + value.contiguous().numpy().tobytes()
            )
        else:
            found.update(repr(value).encode())
    return found.hexdigest()


def serve() -> None:
    """Do the works whose names come in, one a line; milliseconds and digest go out."""
    torch.set_num_threads(1)
    made: dict[str, Callable[[], Any]] = {}
    for name in map(str.strip, sys.stdin):
        work = made[name] if name in made else made.setdefault(name, WORKS[name]())
        begin = time.process_time()
        found = work()
        milliseconds = 1000 * (time.process_time() - begin)
        print(json.dumps([milliseconds, digest(found)]), flush=True)


def main() -> None:
    """Time the works, print a line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cohort.host", description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout of the repository")
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    trees = [ROOT] if arguments.against is None else [arguments.against.absolute(), ROOT]
    processes = []
    for tree in trees:
        paths = os.pathsep.join((str(tree), str(tree / "kernels")))
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", __file__, "--serve"]
        processes.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        )
    for name in WORKS:
        answers: list[list[Any]] = [[] for _ in processes]
        for _ in range(arguments.turns):
            for process, own in zip(processes, answers, strict=True):
                assert process.stdin is not None
                assert process.stdout is not None
                print(name, file=process.stdin, flush=True)
                own.append(json.loads(process.stdout.readline()))
        medians = [statistics.median(ms for ms, _ in own) for own in answers]
        line = f"{name:38s}" + "".join(f"{median:9.2f} ms" for median in medians)
        if len(answers) == 2:
            same = [d for _, d in answers[0]] == [d for _, d in answers[1]]
            line += f"  {medians[0] / medians[1]:5.1f} times  {'the same' if same else 'NOT THE SAME'}"
        print(line, flush=True)
    for process in processes:
        process.communicate()


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else main()
