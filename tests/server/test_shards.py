"""A step whose columns are shared out: the same as in memory, whoever has which, and asked twice."""

import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.mapped import Mapped, scratch
from fedpl.server import Aggregator, Subject
from fedpl.server.cutting import Share, panels
from fedpl.server.looking import look
from fedpl.server.models import Models
from fedpl.server.ondisk import OnDisk
from fedpl.server.shard import Shard
from fedpl.server.state import Aggregation, ServerState
from tests import bounds
from tests.server.conftest import LORA, reference, vectors
from tests.server.test_contract import GROUPS, ROUNDING, ROUNDS, N
from tests.server.test_panels import FEW, MASK, ON_DISK, SIMILAR, rounds


class Several:
    """Shards in this process; what goes to them and comes back goes as bytes, and each is asked twice."""

    far = False

    def __init__(self, size: int) -> None:
        self.size = size

    def each(self, verb: str, orders: Sequence[tuple[Any, ...]]) -> list[Any]:
        assert len(orders) == self.size
        found = {}
        for number in [*range(self.size)[::-1], *range(self.size)]:
            order = pickle.loads(pickle.dumps(orders[number]))
            found[number] = pickle.dumps(getattr(Shard(), verb)(*order))
        return [pickle.loads(found[number]) for number in range(self.size)]


def shared_out(
    rule: Aggregator, shards: Any, folder: Path, size: int = FEW, **given: Any
) -> tuple[ServerState, Aggregation, Mapped]:
    """Two rounds on disk, each into another file."""
    start = scratch(folder, (1, LORA.size), ".start")
    start[:] = reference()
    models = Models.start(start, N)
    state = rule.start(jnp.asarray(reference()), N)
    sent = scratch(folder, (N, LORA.size), ".sent")
    for number, tau in enumerate(ROUNDS):
        sent[:] = tau
        rows = range(1 if rule.one_model(LORA) else N)
        target = scratch(folder, (len(rows), LORA.size), f".target-{number}")
        held: Any = OnDisk(models, rows, target, size, sent, shards)
        state, found = rule.update(state._replace(personal=held), vectors(tau, groups=GROUPS, **given), LORA)
        places = np.zeros(N, np.int32) if len(rows) == 1 else np.arange(N, dtype=np.int32)
        models = models.after(number + 1, target, range(N), places)
    return state, found, target


@pytest.mark.parametrize(("mask", "size"), [(None, 4 * N * 200), (MASK, FEW)], ids=["all", "absent"])
@pytest.mark.parametrize("name", ON_DISK)
def test_shards_do_what_is_done_in_memory(
    name: str, mask: list[bool] | None, size: int, tmp_path: Path
) -> None:
    rule = ON_DISK[name]
    expected, there = rounds(rule, None, size, mask=mask)
    state, here, found = shared_out(rule, Several(3), tmp_path, size, mask=mask)
    bounds.within(found, np.asarray(expected.personal)[: len(found)], len(ROUNDS) * ROUNDING)
    bounds.within(here.similarity, np.asarray(there.similarity), SIMILAR)
    np.testing.assert_array_equal(here.kept, there.kept)
    assert (state.residual is None) == (expected.residual is None)
    if state.residual is not None:
        bounds.within(state.residual, np.asarray(expected.residual), len(ROUNDS) * ROUNDING)
    assert state.memory.keys() == expected.memory.keys()


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("granularity", ["model", "block"])
@pytest.mark.parametrize("space", ["factors", "product"])
def test_every_column_is_one_shards(shards: int, granularity: Any, space: Any) -> None:
    """Also where a rule needs a module at once, and there are more shards than modules."""
    rule = Aggregator(granularity=granularity, subject=Subject(space=space))
    plan, _ = look(rule, vectors(ROUNDS[0]), LORA)
    found = [panels(plan, N, FEW, Share(number, shards)) for number in range(shards)]
    columns = [panel.columns for own in found for panel in own]
    assert columns[0].start == 0
    assert columns[-1].stop == LORA.size
    assert all(one.stop == other.start for one, other in pairwise(columns))


def test_a_shard_has_its_own_columns_of_what_is_sent_to_it(tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    class Heard(Several):
        def each(self, verb: str, orders: Sequence[tuple[Any, ...]]) -> list[Any]:
            asked.extend(orders if verb == "compared" else ())
            return super().each(verb, orders)

    shared_out(Aggregator(), Heard(2), tmp_path)
    for one, other in zip(asked[::2], asked[1::2], strict=True):
        assert len(one[0].state.reference) + len(other[0].state.reference) == LORA.size
        assert one[0].begin == 0
        assert other[0].begin == len(one[0].state.reference)
    size = len(pickle.dumps(asked[0]))
    assert size < 20_000, f"{size} bytes: rows are in it, and not the names of their files"


def test_rows_in_a_file_without_a_name_are_not_sent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a file with a name"):
        pickle.dumps(scratch(tmp_path, (2, 3)))
    named = scratch(tmp_path, (2, 3), "x")
    named[:] = 3
    again = pickle.loads(pickle.dumps(named))
    again[1, 2] = 5
    assert named[1, 2] == 5, "one and the same file"
    part = pickle.loads(pickle.dumps(named[1:]))
    np.testing.assert_array_equal(part, [[3, 3, 5]])
    other = scratch(tmp_path, (1, 2), "x")
    del named, again, part
    assert (tmp_path / "x").exists(), "it is another's by now"
    del other
    assert not (tmp_path / "x").exists()
