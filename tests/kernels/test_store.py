"""The store: round trips, atomic rows, damage found and never aggregated; streams equal memory."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from fedpl_kernels import (
    VectorStore,
    cosine,
    cosine_blocks,
    gram,
    mix,
    mix_blocks,
    reference,
    streaming,
    weights,
)
from fedpl_kernels._panels import RowReader, cut, panel_width, reading_width
from fedpl_kernels._rowfile import HEADER_BYTES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import bounds

SMALL = (48 << 20) + 200_000  # bytes: panels of a few thousand columns


def filled(path: Path, x: np.ndarray, dtype: str = "float32") -> VectorStore:
    store = VectorStore.create(path, *x.shape, dtype)
    for row, values in enumerate(x):
        store.write(row, values)
    return store


def content(store: VectorStore) -> np.ndarray:
    return np.stack([store.read(row) for row in range(store.n)])


def close(found: np.ndarray, exact: np.ndarray, columns: int) -> None:
    """Products of rows with one number of columns, of one range or of several."""
    norms = np.sqrt(np.diagonal(exact, axis1=-2, axis2=-1))
    relative = bounds.gram(bounds.chained(columns))
    bounds.within(found, exact, relative * norms[..., :, None] * norms[..., None, :])


def weight_error(similarity: np.ndarray, columns: int) -> np.ndarray:
    """Of weights from cosines that were found in two ways; a row without a direction keeps its own."""
    similarity = np.asarray(similarity)
    none = np.diagonal(similarity, axis1=-2, axis2=-1) == 0
    return bounds.shares(
        similarity + none[..., None] * np.eye(len(none.T)), 2 * bounds.cosine(bounds.chained(columns))
    )


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 4),
    d=st.integers(1, 3000),
    seed=st.integers(0, 9),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, n: int, d: int, seed: int, dtype: str) -> None:
    path, x = tmp_path_factory.mktemp("store"), vectors(n, d, seed)
    filled(path, x, dtype)
    store = VectorStore.open(path)
    expected = x if dtype == "float32" else x.astype(jnp.bfloat16)
    np.testing.assert_array_equal(content(store), expected)
    assert store.verify().all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_streams_equal_memory(tmp_path: Path, dtype: str) -> None:
    x = vectors(6, 20_011)
    x[2, 15_000] = np.nan
    store, out = filled(tmp_path / "x", x, dtype), VectorStore.create(tmp_path / "out", *x.shape)
    assert panel_width(store, SMALL) < 20_011 / 2, "the test must stream several panels"
    x, mask = content(store).astype(np.float32), np.array([True, True, True, False, True, True])
    streamed = streaming.gram(store, mask, memory_budget=SMALL)
    assert streamed.torn == ()
    close(streamed.gram[0], reference.gram(x, mask), 20_011)
    p = np.asarray(weights.fedbip(cosine(streamed.gram[0])))
    p = p * (np.arange(6) != 2)
    base = filled(tmp_path / "base", vectors(6, 20_011, 1))
    expected = mix(p, x, base=jnp.array(content(base)))
    streaming.mix(p, store, out, mask, base=base, memory_budget=SMALL)
    clean = np.nan_to_num(x)
    both = 2 * bounds.product(p, clean, content(base))
    bounds.within(content(out)[mask], np.asarray(expected)[mask], both[mask])
    np.testing.assert_array_equal(content(out)[~mask], content(base)[~mask])
    assert not [path.name for path in (tmp_path / "out").iterdir() if "partial" in path.name]


def test_ranges_in_two_passes_and_in_one(tmp_path: Path) -> None:
    x, ranges = vectors(5, 9000), ((0, 1500), (2000, 5000), (5000, 9000))
    store = filled(tmp_path / "x", x)
    streamed = streaming.gram(store, boundaries=ranges, memory_budget=SMALL).gram
    close(streamed, reference.gram_blocks(x, ranges), 4000)
    out = filled(tmp_path / "base", vectors(5, 9000, 1))
    similarity = cosine_blocks(x, ranges)
    rows = weights.fedbip(similarity, negatives="clip")
    before = content(out)
    expected = mix_blocks(rows, x, ranges, base=jnp.array(before))
    largest, off = np.abs(rows).max(0), weight_error(np.maximum(similarity, 0), 4000).max(0)
    streaming.mix_per_block(
        lambda _, g: weights.fedbip(cosine(g), negatives="clip"),
        store,
        out,
        boundaries=ranges,
        base=out,
        memory_budget=SMALL + 300_000,
    )
    bounds.within(content(out), expected, 2 * bounds.product(largest, x, before, error=off / 2))
    streaming.mix(rows, store, out, boundaries=ranges, memory_budget=SMALL)
    bounds.within(content(out), mix_blocks(rows, x, ranges), 2 * bounds.product(largest, x))


def test_a_broken_row_keeps_its_base_in_one_pass(tmp_path: Path) -> None:
    x = vectors(4, 3000)
    x[1, [7, 2500]] = np.nan, np.inf
    store, out = filled(tmp_path / "x", x), filled(tmp_path / "base", vectors(4, 3000, 1))
    before = content(out)
    streaming.mix_per_block(
        lambda _, g: weights.fedbip(cosine(g)),
        store,
        out,
        boundaries=((0, 3000),),
        base=out,
        memory_budget=SMALL,
    )
    np.testing.assert_array_equal(content(out)[1], before[1])
    similarity = cosine(gram(x))
    p, off = weights.fedbip(similarity), weight_error(similarity, 3000)
    expected = mix(p, x, np.arange(4) != 1, base=jnp.array(before))
    clean = np.where(np.arange(4)[:, None] == 1, 0, x)
    bounds.within(content(out), expected, 2 * bounds.product(p, clean, before, error=off / 2))


def damage(store: VectorStore, row: int, how: str) -> None:
    path = store.row_path(row)
    raw = bytearray(path.read_bytes())
    if how == "bit":
        raw[HEADER_BYTES + 4000] ^= 4
    elif how == "zeros":
        raw[HEADER_BYTES + 4096 :] = bytes(len(raw) - HEADER_BYTES - 4096)
    elif how == "short":
        del raw[-8:]
    elif how == "header":
        raw[0] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(raw)


@pytest.mark.parametrize("how", ["bit", "zeros", "short", "header", "missing"])
def test_damage_is_found_and_never_aggregated(tmp_path: Path, how: str) -> None:
    x = vectors(4, 6000)
    store, out = filled(tmp_path / "x", x), filled(tmp_path / "out", x)
    damage(store, 2, how)
    np.testing.assert_array_equal(store.verify(), [True, True, False, True])
    with pytest.raises(ValueError, match="row 2 is missing or damaged"):
        store.read(2)
    streamed = streaming.gram(store, memory_budget=SMALL)
    assert streamed.torn == (2,)
    close(streamed.gram[0], reference.gram(x, np.arange(4) != 2), 6000)
    p = np.full((4, 4), 0.25, np.float32)
    with pytest.raises(streaming.TornRowError, match=r"rows \[2\]"):
        streaming.mix(p, store, out, memory_budget=SMALL)
    np.testing.assert_array_equal(content(out), x)
    streaming.mix(p, store, out, np.arange(4) != 2, memory_budget=SMALL)
    bounds.within(content(out), mix(p, x, np.arange(4) != 2), 2 * bounds.product(p, x))


def test_a_crash_while_writing_leaves_the_old_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = vectors(2, 50)
    store = filled(tmp_path, x)

    def crash(*_: object) -> None:
        raise OSError("out of power")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="out of power"):
        store.write(0, x[1])
    monkeypatch.undo()
    np.testing.assert_array_equal(content(store), x)
    half = store.writer(0)
    half.append(x[1, :20])
    with pytest.raises(ValueError, match="expected 50 columns, got 20"):
        half.commit()
    np.testing.assert_array_equal(content(store), x)


def test_a_budget_is_kept_or_refused(tmp_path: Path) -> None:
    store = VectorStore.create(tmp_path, 1000, 1_000_000)
    width = panel_width(store, 1 << 29)
    assert width > 1024
    assert 2 * 4 * 1000 * width < 1 << 29
    with pytest.raises(ValueError, match="memory_budget: expected at least"):
        panel_width(store, 1 << 25)


def test_reading_takes_no_more_than_helps(tmp_path: Path) -> None:
    store = VectorStore.create(tmp_path / "many", 1000, 1_000_000)
    assert reading_width(store, 4 << 30) == 32_768 < panel_width(store, 4 << 30)
    tight = (48 << 20) + 24_000_000 + 2 * 4000 * 3000  # bytes: panels of 3,000 columns
    assert reading_width(store, tight) == 2048 <= panel_width(store, tight) == 3000
    assert reading_width(store, tight, 4) == 1024
    crowd = VectorStore.create(tmp_path / "crowd", 20_000, 1_000_000)
    assert reading_width(crowd, 32 << 30) == 8192 < panel_width(crowd, 32 << 30)
    few = VectorStore.create(tmp_path / "few", 3, 50_001)
    assert reading_width(few, 1 << 30) == 50_001
    with pytest.raises(ValueError, match="memory_budget: expected at least"):
        reading_width(store, 1 << 25)


@pytest.mark.parametrize("rows", [[0], [1, 3, 4], [0, 1, 2, 3, 4]])
def test_readers_share_the_rows_and_fail_together(tmp_path: Path, rows: list[int]) -> None:
    x = vectors(5, 900)
    store = filled(tmp_path / "x", x)
    reader = RowReader(store, np.isin(np.arange(5), rows))
    found = np.full((5, 900), 7, np.float32)
    for start, stop in ((0, 301), (301, 900)):
        reader.read(start, found[:, start:stop])
    np.testing.assert_array_equal(found[rows], x[rows])
    others = np.setdiff1d(np.arange(5), rows)
    assert (found[others] == 7).all()
    assert reader.torn() == ()
    with store.row_path(rows[-1]).open("r+b") as file:
        file.truncate(HEADER_BYTES + 3000)
    with pytest.raises(OSError, match="the file ends at"):
        reader.read(0, found)


def test_wide_ranges_need_two_passes(tmp_path: Path) -> None:
    store = filled(tmp_path / "x", vectors(2, 60_000))
    with pytest.raises(ValueError, match="use two passes"):
        streaming.mix_per_block(lambda _, g: g, store, store, boundaries=((0, 60_000),), memory_budget=SMALL)


def test_panels_cover_all_columns_in_order() -> None:
    panels = cut(((50, 70), (10, 45)), 100, 16)
    assert [panel.start for panel in panels] + [100] == [0] + [panel.stop for panel in panels]
    assert all(panel.stop - panel.start <= 16 for panel in panels)
    assert {p.owner for p in panels if 10 <= p.start < 45} == {1}
    assert {p.owner for p in panels if 50 <= p.start < 70} == {0}
    assert {p.owner for p in panels if p.start < 10 or 45 <= p.start < 50 or p.start >= 70} == {-1}


def test_refusals(tmp_path: Path) -> None:
    store = VectorStore.create(tmp_path / "x", 3, 10)
    with pytest.raises(FileExistsError, match="already holds a store"):
        VectorStore.create(tmp_path / "x", 3, 10)
    with pytest.raises(ValueError, match="n, d >= 1"):
        VectorStore.create(tmp_path / "y", 0, 10)
    with pytest.raises(IndexError, match="expected 0 to 2, got 3"):
        store.row_path(3)
    with pytest.raises(ValueError, match="expected stores of 3 x 10, got 3 x 11"):
        streaming.mix(np.eye(3, dtype=np.float32), store, VectorStore.create(tmp_path / "z", 3, 11))
