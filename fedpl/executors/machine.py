"""What torch finds on this machine, for a process that does without it."""

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from fedpl.deferred import deferred

if TYPE_CHECKING:
    import torch
else:
    torch = deferred("torch")


class Machine(NamedTuple):
    """What workers can share.

    Attributes:
        gpus: As CUDA_VISIBLE_DEVICES names them.
        threads: That torch takes on the CPU.
    """

    gpus: tuple[str, ...]
    threads: int


def look() -> Machine:
    """What there is: asked of another process, which ends, unless torch is in this one."""
    if "torch" in sys.modules:
        return _here()
    asked = [sys.executable, "-m", "fedpl.executors.machine"]
    done = subprocess.run(asked, env=importing(), stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    return Machine(tuple(found["gpus"]), found["threads"])


def importing() -> dict[str, str]:
    """An environment in which another process finds the modules that this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _here() -> Machine:
    gpus: tuple[str, ...] = ()
    if torch.cuda.is_available():
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = tuple(named.split(",") if named else map(str, range(torch.cuda.device_count())))
    return Machine(gpus, torch.get_num_threads())


if __name__ == "__main__":
    print(json.dumps(_here()._asdict()))
