"""Task vectors and aggregates on disk: the same rounds as in memory, block by block."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.files import read_tensors
from fedpl.mapped import scratch
from fedpl.problems import check
from fedpl.server import Aggregator, FactorWise, PrincipalAngles, Residual, Subject
from fedpl.server.panels import step_in_panels
from fedpl.server.rows import spread
from fedpl.server.state import Aggregation, ServerState, save_state, state_of
from fedpl.server.storage import problems_on_disk
from tests import bounds
from tests.server.conftest import COSINE, LORA, reference, vectors
from tests.server.test_contract import FLOOR, GROUPS, METHODS, ROUNDING, ROUNDS, N, rule_of

RULES = {path.stem: rule_of(path) for path in METHODS}
ON_DISK = {name: rule for name, rule in RULES.items() if not problems_on_disk(rule)}
FEW = 4 * N * 7  # of columns: less than any module, and no tensor is a multiple
SIMILAR = 2 * COSINE / FLOOR  # cosines of two orders of sums; some are divided by what is no smaller
MASK = [True, True, False, True, True, True]


def rounds(rule: Aggregator, into: np.ndarray | None, size: int, **given) -> tuple[ServerState, Aggregation]:
    state = rule.init(jnp.asarray(reference()), N, into)
    for tau in ROUNDS:
        came = vectors(tau, groups=GROUPS, **given)
        if into is None:
            state, found = rule.update(state, came, LORA)
        else:
            state, found = step_in_panels(rule, state, came, LORA, size)
            assert state.personal is into
    return state, found


@pytest.mark.parametrize(("mask", "size"), [(None, 4 * N * 200), (MASK, FEW)], ids=["all", "absent"])
@pytest.mark.parametrize("name", ON_DISK)
def test_rounds_on_disk_are_those_in_memory(
    name: str, mask: list[bool] | None, size: int, tmp_path: Path
) -> None:
    rule = ON_DISK[name]
    expected, there = rounds(rule, None, size, mask=mask)
    found, here = rounds(rule, scratch(tmp_path, (N, LORA.size)), size, mask=mask)
    assert found.round == expected.round == 2
    bounds.within(found.personal, np.asarray(expected.personal), len(ROUNDS) * ROUNDING)
    bounds.within(here.similarity, np.asarray(there.similarity), SIMILAR)
    np.testing.assert_array_equal(here.kept, there.kept)
    assert (found.residual is None) == (expected.residual is None)
    if found.residual is not None:
        bounds.within(found.residual, np.asarray(expected.residual), len(ROUNDS) * ROUNDING)
    if mask and not rule.weighting.one_for_all:  # who was away keeps its aggregate bit for bit
        np.testing.assert_array_equal(found.personal[2], expected.personal[2])
    assert list(tmp_path.iterdir()) == []  # nothing to be left behind


@pytest.mark.parametrize(
    "rule",
    [
        Aggregator(granularity="kind"),  # a kind's tensors lie in several blocks, and not in all
        Aggregator(granularity="tensor", share=("lora_B",)),  # blocks without any
        Aggregator(subject=Subject(space="product")),
        Aggregator(similarity=PrincipalAngles(), granularity="block"),
        Aggregator(subject=Subject(space="head"), granularity="block"),  # groups without compared tensors
        Aggregator(granularity="block", combine=FactorWise(match_norm=True), server_lr=0.5),
        Aggregator(subject=Subject(average="products"), shrink=0.3, granularity="block"),
        Aggregator(norm_bound=0.5),  # half of the vectors are cut
        Aggregator(stale_discount=0.5),
    ],
    ids=["kind", "lora_B", "product", "angles", "head", "match_norm", "averaged", "cut", "stale"],
)
def test_choices_meet_the_disk(rule: Aggregator, tmp_path: Path) -> None:
    assert not problems_on_disk(rule)
    age = [0, 0, 1, 0, 0, 0]
    expected, there = rounds(rule, None, FEW, mask=MASK, age=age)
    found, here = rounds(rule, scratch(tmp_path, (N, LORA.size)), FEW, mask=MASK, age=age)
    bounds.within(found.personal, np.asarray(expected.personal), len(ROUNDS) * ROUNDING)
    bounds.within(here.similarity, np.asarray(there.similarity), SIMILAR)
    assert here.kept.min() == there.kept.min()


def test_what_needs_whole_vectors_is_refused_by_name(tmp_path: Path) -> None:
    refused = {name for name, rule in RULES.items() if problems_on_disk(rule)}
    assert refused == {"fedawa", "ifca"}
    config = with_changes(Config(), {"server.storage": "disk", "aggregator.server_momentum": 0.5})
    with pytest.raises(UserError, match=r"fedbip: aggregator.server_momentum: .* server.storage to memory"):
        check(config)
    with pytest.raises(UserError, match=r"fedawa: aggregator.weighting: FedAwa looks at whole vectors"):
        check(with_changes(Config(), {"server.storage": "disk", "baselines": ["fedawa"]}))
    for name in refused:
        state = RULES[name].init(jnp.asarray(reference()), N, scratch(tmp_path, (N, LORA.size)))
        with pytest.raises(ValueError, match=r"set server\.storage to memory"):
            RULES[name].update(state, vectors(ROUNDS[0]), LORA)
    whole = Aggregator(combine=FactorWise(match_norm=True))
    assert "granularity to block" in problems_on_disk(whole)[0]
    assert not problems_on_disk(replace(whole, granularity="block"))
    assert not problems_on_disk(Aggregator(combine=Residual()))


def test_a_state_goes_back_to_where_it_belongs_on_disk(tmp_path: Path) -> None:
    rule = RULES["fedavg"]
    state, _ = rounds(rule, scratch(tmp_path, (N, LORA.size)), FEW)
    save_state(state, tmp_path / "state.safetensors")
    tensors, metadata = read_tensors(tmp_path / "state.safetensors", mapped=True)
    assert tensors["personal"].shape == (1, LORA.size)  # an average is one row
    room = scratch(tmp_path, (N, LORA.size))
    again = state_of(tensors, int(metadata["round"]), spread(tensors, {"personal": room})["personal"])
    assert again.personal is room
    np.testing.assert_array_equal(room, state.personal)
    with pytest.raises(ValueError, match="personal has other clients or parameters than this run"):
        spread(tensors, {"personal": room[1:]})


def test_a_full_disk_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        scratch(tmp_path, (2**30, 2**20))
