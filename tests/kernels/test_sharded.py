"""Meshes of 8 virtual devices in one process, and of 2 devices in each of 2 processes."""

import json
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fedpl_kernels import sharded
from fedpl_kernels._columns import shares, walk_of, windows
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from tests import bounds

PROGRAM = Path(__file__).with_name("mesh_program.py")


def run(processes: int, devices: int) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = PROGRAM.parents[2]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(root), str(root / "kernels"), os.environ.get("PYTHONPATH")])
        ),
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
    # Relative to the largest squared norm, here and there; the devices' totals are added at last.
    products = 2 * bounds.gram(bounds.chained(5003) + processes * devices)
    for report in run(processes, devices):
        assert report["devices"] == processes * devices
        assert report["local"] == devices
        assert report["gram"] <= products
        assert report["mix"] <= 1
        assert report["excluded"] == [3, 5]
        assert report["gram_blocks"] <= products
        assert report["gram_blocks_excluded"] == [3, 5]
        assert report["mix_blocks"] <= 1
        assert report["mix_blocks_new"] <= 1
        assert report["base_deleted"]
        # Rows become columns without a gather: no device ever holds more than its share.
        whole = 24 * (5003 + -5003 % 8) * 4
        assert report["largest_shard"] <= whole // (processes * devices)
        assert report["columns_shard"] <= whole // (processes * devices)
        assert "all-gather" not in report["collectives"]
        assert "all-to-all" in report["collectives"]


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 70), st.data())
def test_devices_share_every_column_of_a_range_once(
    width: int, devices: int, block: int, data: st.DataObject
) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, width * devices), min_size=2, max_size=6)))
    ranges = tuple(pairwise(edges))[::2]
    plans, whole = shares(ranges, width, devices, block), np.zeros((len(ranges), width * devices), int)
    for device, plan in enumerate(plans):
        for start, low, high, owner in zip(*plan[1:], strict=True):
            assert 0 <= start <= low < high <= start + plan.width <= width
            whole[owner, device * width + low : device * width + high] += 1
    for (start, stop), seen in zip(ranges, whole, strict=True):
        assert (seen[start:stop] == 1).all()
        assert seen.sum() == stop - start


def test_a_device_walks_its_own_windows_and_no_others() -> None:
    plans = [windows(ranges, 30, 8) for ranges in (((0, 30),), ((5, 5),), ((3, 9), (10, 26)))]
    for device, plan in enumerate(plans):
        walk = walk_of(jnp.array(device), plans)
        assert walk.cut
        assert int(walk.steps) == len(plan.start)
        for padded, own in zip(walk[3:], plan[1:], strict=True):
            np.testing.assert_array_equal(padded[: len(own)], own)
    assert not walk_of(jnp.array(0), [windows(((0, 16),), 32, 8), windows(((8, 32),), 32, 8)]).cut


def test_a_new_array_is_cleared_unless_the_ranges_cover_it() -> None:
    mesh, p, x = Mesh(np.array(jax.devices()[:1]), ("d",)), jnp.ones((2, 3, 3)), jnp.ones((3, 10))
    for stop, uncleared in ((10, True), (9, False)):
        program = sharded._mix(mesh, "d", "highest", ((0, 5), (5, stop)), False)
        assert ("empty" in str(jax.make_jaxpr(program)(None, p, x))) == uncleared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundaries": ((0, 5), (5, 11))}, r"ranges 0 <= start < stop <= 10, got \[\(5, 11\)\]"),
        ({"boundaries": ((0, 5), (4, 9))}, "do not overlap"),
        ({"boundaries": ((0, 5),)}, "got 2 for 1 ranges"),
    ],
)
def test_refusals(change: dict, message: str) -> None:
    mesh = Mesh(np.array(jax.devices()[:1]), ("d",))
    arguments = {"boundaries": ((0, 5), (5, 10))} | change
    with pytest.raises(ValueError, match=message):
        sharded.mix_blocks(np.ones((2, 3, 3), np.float32), jnp.ones((3, 10)), mesh, **arguments)
