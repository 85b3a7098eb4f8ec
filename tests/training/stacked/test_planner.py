"""Cohorts hold every client once, with companions of similar work."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpl.model.hardware import bound_primitives
from fedpl.training.backend import Effort as Work
from fedpl.training.stacked.planner import cohort_size, group, pass_limits

CPU = torch.device("cpu")


@given(st.lists(st.builds(Work, st.integers(1, 9), st.integers(1, 99)), max_size=40), st.integers(1, 12))
def test_group(work: list[Work], size: int) -> None:
    cohorts = group(work, size)
    assert sorted(i for members in cohorts for i in members) == list(range(len(work)))
    sizes = [len(members) for members in cohorts]
    assert not sizes or (max(sizes) <= size and max(sizes) - min(sizes) <= 1)
    assert len(cohorts) == -(-len(work) // size)
    steps = [work[i].steps for members in cohorts for i in members]
    assert steps == sorted(steps, reverse=True)


def test_cohort_size_follows_memory() -> None:
    assert cohort_size("auto", CPU, params=74_498, free=2**40) == 64
    assert cohort_size("auto", torch.device("cuda"), params=74_498, free=2**40) == 256
    tight = cohort_size("auto", CPU, params=10**6, free=10 * 24 * 10**6)
    assert 1 < tight < 10
    assert cohort_size("auto", CPU, params=10**9, free=2**20) == 1
    assert cohort_size(7, CPU, params=10**9, free=2**20) == 7


def test_pass_limits_follow_memory() -> None:
    assert pass_limits("auto", CPU, 10**4, 2**40).tokens == 2048
    assert pass_limits("auto", CPU, 10**6, 10**9).tokens == 250
    assert pass_limits("auto", CPU, 10**6, 0).tokens == 1
    assert pass_limits(33, CPU, 10**6, 0).tokens == 33
    assert pass_limits("auto", torch.device("cuda"), 1, 2**40).multiple == 8


def test_few_compiled_kernels_are_kept_unless_the_user_wants_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    bound_primitives()
    assert os.environ["LRU_CACHE_CAPACITY"] == "32"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"


def test_objectives_that_hold_more_get_smaller_cohorts() -> None:
    free = 10 * 24 * 10**6
    assert cohort_size("auto", CPU, 10**6, free, copies=6) < cohort_size("auto", CPU, 10**6, free)
