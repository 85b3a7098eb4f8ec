"""Other systems' kernels, each in its own environment, timed in turn with ours.

`--peer flower=PATH/bin/python` names the interpreter of an environment where that system is installed.
"""

import json
import subprocess
from pathlib import Path

import numpy as np

KERNELS = {"flower": ("flower_distances", "flower_average"), "pfl": ("pfl_sum",), "fedjax": ("fedjax_mean",)}
PACKAGE = {"flower": "flwr", "pfl": "pfl", "fedjax": "fedjax"}


class Peer:
    """A process of another environment that keeps its data and answers one call at a time."""

    def __init__(self, system: str, interpreter: str) -> None:
        if system not in KERNELS:
            raise ValueError(f"peer: expected one of {', '.join(KERNELS)}, got {system!r}")
        self.system, self.kernels = system, KERNELS[system]
        self.version = subprocess.run(
            [interpreter, "-c", f"import importlib.metadata as m; print(m.version('{PACKAGE[system]}'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        self._process = subprocess.Popen(
            [interpreter, str(Path(__file__).with_name("peer_program.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.sample = np.zeros(0)

    def call(self, kernel: str, n: int, d: int) -> float:
        """Seconds of one call, as that process measured them; its `sample` is kept for the check.

        Raises:
            RuntimeError: with the other system's words, when it cannot do it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.write(f"{kernel} {n} {d}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{kernel}: {self._process.stderr.read().strip().splitlines()[-1]}")
        answer = json.loads(line)
        self.sample = np.array(answer["sample"])
        return float(answer["seconds"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
