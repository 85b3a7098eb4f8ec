"""Inner products and cosines: equal to float64, symmetric, blind to what is masked or broken."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fedpl_kernels import cosine, cosine_blocks, gram, gram_blocks, reference, usable_rows
from fedpl_kernels._columns import cover, cover_at_once, default_block, mix_block, windows
from fedpl_kernels._gram import raw_gram, tile_edges
from fedpl_kernels._mix import _onto
from fedpl_kernels._precision import check_precision
from fedpl_kernels._sketch import _compress
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import bounds

# What the operands are rounded to first; on a CPU "tf32" is plain float32.
INPUTS = {"highest": 0.0, "tf32": 0.0, "bf16": bounds.BF16}
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 70))


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def close(actual: np.ndarray, expected: np.ndarray, columns: int, precision: str = "highest") -> None:
    norms = np.sqrt(np.diagonal(expected, axis1=-2, axis2=-1))
    relative = bounds.gram(bounds.chained(columns), INPUTS[precision])
    bounds.within(actual, expected, relative * norms[..., :, None] * norms[..., None, :])


@pytest.mark.parametrize("precision", ["highest", "tf32", "bf16"])
@pytest.mark.parametrize(
    ("n", "d", "block"), [(1, 1, None), (5, 3, 8), (7, 100, 16), (300, 2500, None), (130, 64, 64)]
)
def test_gram_equals_reference(n: int, d: int, block: int | None, precision: str) -> None:
    x = vectors(n, d)
    close(np.asarray(gram(x, precision=precision, block=block)), reference.gram(x), d, precision)


# XLA chains 2,048 columns on a CPU without AVX-512: twice the error (`bounds.squared_norm`).
@pytest.mark.parametrize(
    ("n", "d", "longest"), [(300, 2500, 512), (1030, 4000, 512), (100, 9000, 512), (12, 75_000, 75_000)]
)
def test_few_columns_are_not_added_in_one_chain(n: int, d: int, longest: int) -> None:
    x, block = jax.ShapeDtypeStruct((n, d), "float32"), default_block(n, "cpu")
    text = raw_gram.lower(x, "highest", ((0, d),), block, "cpu").as_text()
    widths = re.findall(r"dot_general.*: \(tensor<\d+x(\d+)xf32>", text)
    assert max(map(int, widths)) == longest


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ["AVX2", "AVX"])
def test_gram_of_programs_for_an_older_cpu(isa: str, threads: int) -> None:
    """XLA's own code only: the products choose theirs by the CPU that runs them.

    One chain of 2,048 columns would err by 5e-7 of a squared norm, in the root mean square.
    """
    program = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:%d])\n"
        "import numpy as np; from fedpl_kernels import gram\n"
        "x = np.random.default_rng(0).standard_normal((300, 2500)).astype('float32')\n"
        "exact = x.astype(float) @ x.T.astype(float); norms = np.sqrt(np.diag(exact))\n"
        "for p in ('highest', 'tf32'):\n"
        "    error = (gram(x, precision=p) - exact) / np.outer(norms, norms)\n"
        "    print(float(np.abs(error).max()), float(np.sqrt(np.mean(np.diag(error) ** 2))))"
    )
    kernels = str(Path(__file__).parents[2] / "kernels")
    environment = os.environ | {"XLA_FLAGS": f"--xla_cpu_max_isa={isa}", "PYTHONPATH": kernels}
    command = [sys.executable, "-c", program % threads]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        largest, typical = map(float, line.split())
        assert largest < bounds.gram(bounds.chained(2500))
        assert 0 < typical < bounds.squared_norm(2500)


def test_bfloat16_vectors_are_multiplied_exactly_and_added_in_float32() -> None:
    x = jnp.asarray(vectors(6, 5000), jnp.bfloat16)
    close(np.asarray(gram(x)), reference.gram(np.asarray(x, np.float64)), 5000)


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(1, 80), st.integers(0, 99))
def test_any_block_gives_the_same(shape: tuple[int, int], block: int, seed: int) -> None:
    x = vectors(*shape, seed)
    close(np.asarray(gram(x, block=block)), reference.gram(x), shape[1])


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 99))
def test_permuting_clients_permutes_the_result(shape: tuple[int, int], seed: int) -> None:
    x = vectors(*shape, seed)
    order = np.random.default_rng(seed).permutation(shape[0])
    bounds.within(cosine(gram(x[order])), cosine(gram(x))[order][:, order], 2 * bounds.cosine(shape[1]))


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 99), st.floats(1e-6, 1e6))
def test_cosine_is_symmetric_bounded_and_blind_to_scale(
    shape: tuple[int, int], seed: int, scale: float
) -> None:
    x = vectors(*shape, seed)
    result = np.asarray(cosine(gram(x)))
    np.testing.assert_array_equal(result, result.T)
    np.testing.assert_array_equal(np.diag(result), np.ones(shape[0]))
    assert np.abs(result).max() <= 1.0
    scaled = x.copy()
    scaled[0] *= np.float32(scale)
    bounds.within(cosine(gram(scaled)), result, 2 * bounds.cosine(shape[1] + 1))


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 99), st.sampled_from([0.0, 1e3, np.nan, np.inf]))
def test_absent_clients_have_no_influence(shape: tuple[int, int], seed: int, value: float) -> None:
    x, rng = vectors(*shape, seed), np.random.default_rng(seed)
    mask = rng.random(shape[0]) < 0.6
    other = x.copy()
    other[~mask] = value
    result = np.asarray(gram(other, mask))
    np.testing.assert_array_equal(result, gram(x, mask))
    assert not result[~mask].any()
    assert not result[:, ~mask].any()
    close(result, reference.gram(x, mask), shape[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_rows_are_excluded_and_named(value: float) -> None:
    x = vectors(150, 300)
    x[[3, 140], [7, 299]] = value
    result = np.asarray(gram(x, block=64))
    close(result, reference.gram(x), 300)
    assert np.flatnonzero(~np.asarray(usable_rows(result))).tolist() == [3, 140]


def test_zero_rows_have_no_direction() -> None:
    x = vectors(4, 50)
    x[2] = 0
    result = np.asarray(cosine(gram(x)))
    assert not result[2].any()
    assert not result[:, 2].any()
    bounds.within(result, reference.cosine(reference.gram(x)), bounds.cosine(50))


def test_duplicates_opposites_and_one_client() -> None:
    one = vectors(1, 40)
    np.testing.assert_array_equal(cosine(gram(one)), [[1.0]])
    found = cosine(gram(np.concatenate([one, one, -3 * one])))
    bounds.within(found, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], bounds.cosine(40 + 1))


def test_ranges_equal_cutting_the_columns() -> None:
    x, ranges = vectors(9, 333), ((0, 5), (5, 140), (200, 333))
    x[4, 230] = np.nan
    mask = np.arange(9) != 7
    close(np.asarray(gram_blocks(x, ranges, mask, block=32)), reference.gram_blocks(x, ranges, mask), 135)
    expected = reference.cosine_blocks(x, ranges, mask)
    bounds.within(cosine_blocks(x, ranges, mask), expected, bounds.cosine(135))


def test_nearly_parallel_rows_keep_their_cosine() -> None:
    x = vectors(1, 20_000).repeat(2, 0)
    x[1, 0] += 3.0
    expected = reference.cosine(reference.gram(x))[0, 1]
    # Six standard deviations each of the product and of the norms, all of which are nearly one number.
    allowed = 2 * 6 * bounds.squared_norm(20_000, chain=20_000)
    assert 5 * allowed < 1 - expected
    bounds.within(cosine(gram(x))[0, 1], expected, allowed)


def test_number_of_present_clients_and_values_do_not_compile_again() -> None:
    gram(vectors(11, 222))
    before = raw_gram._cache_size()
    for present in (1, 4, 11):
        gram(vectors(11, 222, seed=present), jnp.arange(11) < present)
    assert raw_gram._cache_size() == before


def test_can_be_traced_and_differentiated() -> None:
    x = jnp.asarray(vectors(3, 20))
    close(np.asarray(jax.jit(lambda v: gram(v))(x)), reference.gram(np.asarray(x)), 20)


def test_lowers_for_a_gpu_with_full_precision_products() -> None:
    traced = raw_gram.trace(
        jax.ShapeDtypeStruct((6000, 9000), "float32"), "highest", ((0, 9000),), 8192, "gpu"
    )
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "HIGHEST" in text
    assert text.count("dot_general") == 6  # three tile rows: six tiles; one window


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nothing_as_large_as_x_is_held_beside_it(dtype: jnp.dtype) -> None:
    shape, whole = (256, 200_000), ((0, 200_000),)
    x, base = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape, "float32")
    p = jax.ShapeDtypeStruct((1, 256, 256), "float32")
    programs = (
        raw_gram.lower(x, "highest", whole, 4096, "cpu"),
        _onto.lower(base, p, np.ones(256, bool), x, "highest", whole, 4096),
        _compress.lower(x, jax.random.key(0), 4096),
    )
    for program in programs:
        assert program.compile().memory_analysis().temp_size_in_bytes < 0.25 * x.size * 2


@given(st.integers(1, 3000), st.sampled_from([128, 1024]))
def test_tiles_cover_all_rows(n: int, tile: int) -> None:
    edges = tile_edges(n, tile)
    assert edges[0] == 0
    assert edges[-1] == n
    assert all(a < b for a, b in pairwise(edges))
    assert len(edges) <= 9


def layout(hidden: int, mlp: int, keys: int, blocks: int, rank: int = 16) -> tuple[tuple[int, int], ...]:
    """Ranges of a Llama-like adapter, block by block: seven matrices of factors A and B each; and a head."""
    sides = ((hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden))
    sides += ((hidden, mlp), (hidden, mlp), (mlp, hidden))
    size = sum(rank * (i + o) for i, o in sides)
    edges = [size * i for i in range(blocks + 1)]
    return (*pairwise(edges), (edges[-1], edges[-1] + 2 * (hidden + 1)))


DEFAULT_JOB = (*pairwise(range(0, 6 * 12_288 + 1, 12_288)), (73_728, 74_498))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("n", [4, 12, 32, 128, 512, 2048])
@pytest.mark.parametrize(
    "ranges",
    [DEFAULT_JOB, layout(2048, 8192, 512, 16), layout(4096, 11_008, 4096, 32)],
    ids=["7", "17", "33"],
)
def test_no_column_is_worked_on_that_is_not_asked_for(
    ranges: tuple[tuple[int, int], ...], n: int, platform: str
) -> None:
    """One width for all ranges took 6 to 25 times as many."""
    walks = cover(ranges, ranges[-1][1], default_block(n, platform))
    assert sum(walk.width * int(walk.steps) for walk in walks) == ranges[-1][1]
    assert not any(walk.cut for walk in walks)
    assert len(walks) <= 3, "every width is a loop of its own in the program"


@pytest.mark.parametrize("n", [4, 12, 32, 128, 512, 2048])
@pytest.mark.parametrize(
    "ranges",
    [DEFAULT_JOB, layout(2048, 8192, 512, 16), layout(4096, 11_008, 4096, 32)],
    ids=["7", "17", "33"],
)
def test_what_is_written_takes_one_walk_and_few_columns_more(
    ranges: tuple[tuple[int, int], ...], n: int
) -> None:
    width = ranges[-1][1]
    walks = cover_at_once(ranges, width, mix_block(n, "cpu"))
    assert sum(walk.width * int(walk.steps) for walk in walks) <= 1.3 * width
    assert len(walks) == 1 or all(walk.steps <= len(ranges) for walk in walks)


@given(st.integers(1, 400), st.integers(1, 30), st.data())
def test_a_cover_counts_every_column_of_a_range_once(width: int, block: int, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, width), min_size=2, max_size=40)))
    ranges = tuple(pairwise(edges))[:: data.draw(st.integers(1, 2))]
    counted = np.zeros((len(ranges), width), int)
    for walk in cover(ranges, width, block):
        for start, low, high, owner in zip(*map(np.asarray, walk[3:]), strict=True):
            assert start >= 0
            assert start + walk.width <= width
            assert start <= low < high <= start + walk.width
            counted[owner, low:high] += 1
    for (start, stop), row in zip(ranges, counted, strict=True):
        assert row.sum() == stop - start
        assert (row[start:stop] == 1).all()


@given(st.integers(1, 200), st.integers(1, 300), st.data())
def test_windows_count_every_column_of_a_range_once(width: int, block: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, width), min_size=2, max_size=5)) | {0})
    ranges = tuple(pairwise(cuts))
    plan = windows(ranges, width, block)
    counted = [np.zeros(width, int) for _ in ranges]
    for start, low, high, owner in zip(*plan[1:], strict=True):
        assert 0 <= start <= low < high <= start + plan.width <= width
        counted[owner][low:high] += 1
    for (start, stop), seen in zip(ranges, counted, strict=True):
        assert (seen[start:stop] == 1).all()
        assert seen.sum() == stop - start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": 0}, "block: expected at least 1 column, got 0"),
        ({"boundaries": ((0, 5), (4, 4))}, r"ranges 0 <= start < stop <= 10, got \[\(4, 4\)\]"),
        ({"boundaries": ((0, 11),)}, r"got \[\(0, 11\)\]"),
        ({"boundaries": ()}, "got none"),
    ],
)
def test_errors_say_what_was_expected(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gram_blocks(vectors(3, 10), **({"boundaries": ((0, 10),)} | arguments))


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision: expected one of highest, tf32, bf16; got 'half'"):
        check_precision("half")


def test_cosine_looks_at_its_mask_and_not_only_at_the_diagonal() -> None:
    """Products of the masked may be there: those of a store, or averaged over rounds."""
    x = vectors(4, 30)
    found = np.asarray(cosine(x @ x.T, np.array([True, False, True, True])))
    assert not found[1].any()
    assert not found[:, 1].any()
    assert found[0, 0] == 1
