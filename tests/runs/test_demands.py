"""What is refused before a run has a directory."""

from dataclasses import replace

import pytest
import torch

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.model.memory import free_memory
from fedpl.records.layout import AdapterLayout
from fedpl.records.messages import Census, Member
from fedpl.runs.demands import check_demands
from fedpl.server import Aggregator, Blend, TrueGroups
from fedpl.tasks.metrics import CLASSIFICATION


def census(size: int, clients: int = 2, group: str = "") -> Census:
    members = tuple(Member(f"c{i}", 1, {}, "", group) for i in range(clients))
    layout = AdapterLayout.of({"head.weight": (size, 1)})
    return Census(members, layout, torch.zeros(1), CLASSIFICATION, ("no", "yes"), "cpu")


def test_more_task_vectors_than_memory() -> None:
    row = free_memory(torch.device("cpu")) // 4
    check_demands(Config(), census(row // 100))
    with pytest.raises(
        UserError, match=r"lora\.r: .* of 2 clients .* GB are free on cpu; keep them on disk .* lower lora\.r"
    ):
        check_demands(Config(), census(row // 4))
    # A single method needs no room for a first round that others share.
    check_demands(replace(Config(), baselines=()), census(row // 5))


def test_groups_that_the_data_does_not_name_are_missed_wherever_they_are_needed() -> None:
    inside = Config(aggregator=Aggregator(weighting=Blend(TrueGroups())), baselines=())
    check_demands(inside, census(1, group="a"))
    with pytest.raises(UserError, match="fedbip: TrueGroups needs data that names each client's group"):
        check_demands(inside, census(1))
