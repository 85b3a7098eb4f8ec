"""Meshes of 8 virtual devices in one process, and of 2 devices in each of 2 processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("mesh_program.py")


def run(processes: int, devices: int) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kernels = str(PROGRAM.parents[2] / "kernels")
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, [kernels, os.environ.get("PYTHONPATH")])),
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(process), str(processes), str(port)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(output.splitlines()[-1]) for output, _ in ended]


@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 2)])
def test_a_mesh_gives_the_answers_of_one_device(processes: int, devices: int) -> None:
    for report in run(processes, devices):
        assert report["devices"] == processes * devices
        assert report["local"] == devices
        assert report["gram"] < 1e-6
        assert report["mix"] < 1e-5
        assert report["excluded"] == [3, 5]
        assert report["base_deleted"]
        # Rows become columns without a gather: no device ever holds more than its share.
        whole = 24 * (5003 + -5003 % 8) * 4
        assert report["largest_shard"] <= whole // (processes * devices)
        assert report["columns_shard"] <= whole // (processes * devices)
        assert "all-gather" not in report["collectives"]
        assert "all-to-all" in report["collectives"]
