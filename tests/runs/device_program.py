"""Runs `python -m fedpl.fit` on the emulated accelerator and on the CPU; see test_on_a_device.py.

Standard input: a JSON object of arguments by name. Standard output: for each, what both runs recorded.
"""

import json
import sys
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from fedpl.fit import main
from fedpl.model import hardware
from fedpl.training import fitting
from fedpl.training.stacked import planner
from tests import emulated


def trainer(device: torch.device, **options: Any) -> lightning.Trainer:
    """Lightning chooses the device by the accelerator's name, and knows no name for this one."""
    del options["accelerator"], options["devices"]
    accelerator = emulated.EmulatedAccelerator() if device == emulated.DEVICE else "cpu"
    return lightning.Trainer(strategy=SingleDeviceStrategy(device, accelerator), **options)


def run(arguments: list[str], device: torch.device) -> dict[str, Any]:
    """Metrics and test scores of a run."""
    fitting.lightning = SimpleNamespace(Trainer=partial(trainer, device))  # type: ignore[assignment]
    own = hardware.Hardware(device, "32-true")  # where the server works, and where clients train
    hardware.choose_hardware = lambda accelerator, precision: own
    there = emulated.present() if device == emulated.DEVICE else nullcontext()
    with TemporaryDirectory() as folder, there, redirect_stdout(sys.stderr):
        main([*arguments, f"--run_dir={folder}/run"])
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return {"rounds": [json.loads(line) for line in lines], "clients": summary["clients"], "on": str(device)}


def both(arguments: list[str]) -> dict[str, Any]:
    """The same run on either device; ``--largest`` bounds the emulated one's tensors."""
    largest = [int(word.partition("=")[2]) for word in arguments if word.startswith("--largest=")]
    rest = [word for word in arguments if not word.startswith("--largest=")]
    emulated.LARGEST = largest[0] if largest else None
    return {"device": run(rest, emulated.DEVICE), "cpu": run(rest, torch.device("cpu"))}


if __name__ == "__main__":
    for table in (planner._MOST_CLIENTS, planner._PASS_TOKENS, planner._PASS_OVERHEAD):
        table[emulated.DEVICE.type] = table["cuda"]
    jobs = json.load(sys.stdin)
    print(json.dumps({name: both(arguments) for name, arguments in jobs.items()}))
