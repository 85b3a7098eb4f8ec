"""The weighting `Agreement`: who has the same task, whatever the noise."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.records.layout import AdapterLayout
from fedpl.server import Aggregator, Agreement, FactorWise, InnerProduct, Subject, Trimmed
from fedpl.server.agreement import apart, follow
from fedpl.server.blocks import blocks
from fedpl.server.expecting import Expected, expect
from fedpl.server.reports import correction, shares
from fedpl.server.state import ServerState, TaskVectors, load_state, save_state
from fedpl.server.structure import PRIOR

WIDE = AdapterLayout.of({"head.weight": (2, 2000)}, scale=1.0)
RULE = Aggregator(Subject(average="products"), weighting=Agreement())


def came(
    seed: int,
    tasks: np.ndarray,
    noise: float | np.ndarray = 1.0,
    mask: list[bool] | None = None,
    size: float = 1.0,
) -> TaskVectors:
    """Task vectors: true directions of length `size`, noise, and what halves of twice the noise tell.

    Args:
        seed: Of the noise.
        tasks: True directions, a row for each client.
        noise: Length of each client's.
        mask: Who is there.
        size: Of the true directions.
    """
    rng, (n, k) = np.random.default_rng(seed), tasks.shape
    noise = np.broadcast_to(noise, n)
    truth = np.zeros((n, WIDE.size))
    truth[:, :k] = size * tasks

    def drawn(times: float) -> np.ndarray:
        return truth + times * noise[:, None] * rng.normal(size=truth.shape) / np.sqrt(WIDE.size)

    found, (one, other) = drawn(1.0), (drawn(np.sqrt(2)), drawn(np.sqrt(2)))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    present = jnp.array(mask or [True] * n)
    vectors, halves = (jnp.asarray(x, jnp.float32) for x in (found, cosine))
    return TaskVectors(vectors, present, jnp.full(n, 32), halves=halves)


def kinds(*labels: int) -> np.ndarray:
    return np.eye(max(labels) + 1)[list(labels)]


def start(n: int) -> ServerState:
    return RULE.init(jnp.zeros(WIDE.size), n)


def weights(
    state: ServerState, vectors: TaskVectors, rule: Aggregator = RULE
) -> tuple[ServerState, np.ndarray]:
    state, found = rule.update(state, vectors, WIDE)
    return state, np.asarray(found.weights)[0]


def expecting(same: np.ndarray, blind: np.ndarray | None = None) -> Expected:
    """Any agreement is as likely as any other, with an error of 0.05 where scales are 0.8."""
    everything = np.full(81, 1 / 81)
    blind = np.zeros_like(same) if blind is None else blind
    return Expected(0.0016, same, blind, np.where(blind, 0.5, same), everything, everything)


def averages(*labels: int) -> np.ndarray:
    same = np.equal.outer(labels, labels)
    return pytest.approx(same / same.sum(1, keepdims=True), abs=0.02)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "labels",
    [(0,) * 8, (0, 1) * 4, (0, 0, 1, 1, 2, 2, 3, 3), (0, 0, 0, 0, 0, 1, 1, 2), tuple(range(8))],
    ids=["one", "two", "pairs", "unequal", "strangers"],
)
@pytest.mark.parametrize("noise", [0.7, 1.4])
def test_groups_of_any_number_and_size(labels: tuple[int, ...], noise: float) -> None:
    _, found = weights(start(8), came(0, kinds(*labels), noise))
    assert found == averages(*labels)


def test_a_common_direction_makes_no_group() -> None:
    """Tasks that have a third of their energy in common: cosines of task vectors that are noisier, but of one
    task, are smaller than theirs."""
    tasks = np.hstack([np.sqrt(2 / 3) * np.eye(8), np.full((8, 1), np.sqrt(1 / 3))])
    vectors, alike = came(1, tasks, 0.5), came(1, kinds(*(0,) * 8), 2.0)

    def mean(x: TaskVectors) -> float:
        rows = np.asarray(x.matrix)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return float((rows @ rows.T)[~np.eye(8, dtype=bool)].mean())

    assert mean(vectors) > mean(alike)
    _, found = weights(start(8), vectors)
    assert (found.diagonal() > 0.75).all()  # and a little of what they have in common
    assert weights(start(8), alike)[1] == averages(*(0,) * 8)


def test_unequal_noise_keeps_nobody_out() -> None:
    _, found = weights(start(8), came(2, kinds(*(0, 1) * 4), np.geomspace(0.4, 2.5, 8)))
    assert found == averages(*(0, 1) * 4)


def test_nothing_in_common_joins_nobody() -> None:
    """Noise alone: what is reported says nothing, and agreement is 0 / 0."""
    joined, own = 0, []
    for seed in range(60):
        state, found = weights(start(6), came(seed, kinds(*(0,) * 6), size=0.0))
        joined += len(set(state.of("weighting")["labels"].tolist())) < 6
        own.append(found.diagonal().mean())
    assert joined <= 8  # 99.9 % of draws of 60 at 5 %
    assert np.mean(own) > 0.75


def test_opposed_clients_stay_alone() -> None:
    tasks = np.array([[1.0], [-1.0]])
    _, found = weights(start(2), came(3, tasks, 0.7))
    assert found == averages(0, 1)
    _, found = weights(start(2), came(3, np.abs(tasks), 0.7))
    assert found == averages(0, 0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_clients(n: int) -> None:
    _, found = weights(start(8), came(4, kinds(*(0,) * 8), 0.7, [True] * n + [False] * (8 - n)))
    assert found == averages(*(0,) * n, *range(1, 9 - n))


def test_who_returns_is_in_its_group_and_the_absent_stay() -> None:
    labels = (0, 1) * 4
    state, _ = weights(start(8), came(5, kinds(*labels)))
    few = [True, True, True] + [False] * 5
    _, found = weights(state, came(6, kinds(*labels), 3.0, few))
    assert found == averages(0, 1, 0, 3, 4, 5, 6, 7)


def test_an_answer_stays_until_evidence_speaks_against_it() -> None:
    """Who was together stays as long as enough agreement is possible; others join when it is likely."""
    rule, scale = Agreement(alike=0.6, steady=2.0), np.full((2, 2), 0.8)

    def joined(agreement: float, before: list[int], anew: bool = True) -> list[int]:
        same = np.ones((2, 2), bool) if anew else np.eye(2, dtype=bool)
        cosine = np.full((2, 2), agreement * 0.8)
        return rule.join(cosine, scale, expecting(same), np.array(before)).tolist()

    new, one, apart = [-1, -1], [0, 0], [0, 1]
    for agreement in (0.52, 0.56):
        assert joined(agreement, new) == joined(agreement, apart) == apart
        assert joined(agreement, one) == joined(agreement, one, False) == one
    for before in (new, one, apart):
        assert joined(0.7, before) == one
        assert joined(0.45, before) == apart
    assert joined(0.7, new, False) == apart


def test_who_the_cosines_alone_show_in_one_of_several_groups_stays_together() -> None:
    """As long as half of what joins is shown; where there is one group for all, that tells nothing."""
    tested = np.array([0, 0, 2, 2])

    def joined(same: np.ndarray, before: list[int], agreement: float = 0.4) -> list[int]:
        cosine = np.where(np.equal.outer(tested, tested), 0.8 * agreement, 0.0)
        return Agreement().join(cosine, np.full((4, 4), 0.8), expecting(same), np.array(before)).tolist()

    several, one = np.equal.outer(tested, tested), np.ones((4, 4), bool)
    assert joined(several, [0, 0, 2, 2]) == [0, 0, 2, 2]
    assert joined(several, [0, 0, 2, 2], 0.3) == [0, 1, 2, 3]
    assert joined(one, [0, 0, 2, 2]) == joined(several, [-1] * 4) == [0, 1, 2, 3]
    assert joined(several, [0, 0, 0, 0]) == [0, 0, 2, 2]


def test_who_knows_little_of_its_task_shares_with_those_that_seem_to_have_it() -> None:
    """Noise so large that nothing about one pair is sure: others show that there are two tasks, or many."""
    labels, noise = (0, 1) * 6, np.where(np.arange(12) < 10, 0.5, 6.0)
    _, found = weights(start(12), came(20, kinds(*labels), noise))
    same = np.equal.outer(labels, labels)
    assert (found * same).sum(1).min() > 0.9
    assert found[[10, 11], [10, 11]].max() < 0.3
    _, found = weights(start(12), came(20, kinds(*range(12)), noise))
    assert found.diagonal()[:10].min() > 0.95


def test_scales_make_blocks_of_unequal_clients_alike() -> None:
    """Cosines are multiples of what both show: without noise nothing is left, and multiples are found."""
    signal, labels = np.linspace(0.1, 0.9, 6), np.array([0, 1, 0, 1, 0, 1])
    scale = np.sqrt(np.outer(signal, signal))
    agreement = np.where(np.equal.outer(labels, labels), 0.8, 0.3)
    cosine = agreement * scale
    found = blocks(cosine, labels, scale)
    assert found.mean == pytest.approx(np.array([[0.8, 0.3], [0.3, 0.8]]))
    assert found.noise == pytest.approx(PRIOR**2 / (15 - 3 + 1))
    assert blocks(cosine, labels).noise > 10 * found.noise
    assert found.entries[0, 1] == pytest.approx(np.square(scale[labels == 0][:, labels == 1]).sum())


@pytest.mark.parametrize("claim", [0.0, 1.0, np.nan, -1.0])
def test_a_claim_draws_nobody_elses_groups_together(claim: float) -> None:
    labels = (0, 1) * 4
    vectors = came(10, kinds(*labels))
    bridge = vectors.matrix.at[7].set(vectors.matrix[0] + vectors.matrix[1])
    assert vectors.halves is not None
    _, found = weights(start(8), vectors._replace(matrix=bridge, halves=vectors.halves.at[7].set(claim)))
    assert found[[0, 2, 4, 6]][:, [1, 3, 5]].max() < 0.05


def test_a_hostile_vector_of_any_length_stays_alone() -> None:
    vectors = came(11, kinds(*(0, 1) * 4))
    for value in (vectors.matrix[7] * -1e4, jnp.full(WIDE.size, jnp.nan)):
        _, found = weights(start(8), vectors._replace(matrix=vectors.matrix.at[7].set(value)))
        assert found[:7, 7].max() < 1e-6
        assert np.isfinite(found).all()


def test_who_has_no_halves_is_like_the_others() -> None:
    labels = (0, 1) * 4
    vectors = came(12, kinds(*labels), 0.7)
    assert vectors.halves is not None
    missing = vectors._replace(halves=vectors.halves.at[3].set(jnp.nan))
    assert weights(start(8), missing)[1] == averages(*labels)
    equal = np.full(3, 32)
    assert shares(np.array([0.5, np.nan, 0.5]), equal, 0.01) == pytest.approx([2 / 3] * 3, abs=0.01)
    assert shares(np.array([np.nan, np.nan]), equal[:2], 0.01) == pytest.approx([0.005] * 2)
    assert shares(np.array([-0.3, 1.0]), equal[:2], 0.0) == pytest.approx([0.005, 1.0])


def test_what_a_report_leaves_open_lies_above_zero() -> None:
    """Of twelve reports one lies below: what is left is the mean of what its error allows, by quadrature."""
    told, error = np.array([0.3, 0.2, 0.4, 0.1] * 3), 0.004
    told[5] = -0.15
    grid = np.linspace(-2, 2, 400_001)
    off = np.square(told - told.mean()).mean()
    kept = (off - error) / off
    for factor in (1.0, 1.5):
        found = shares(told, np.full(12, 32), error, factor)
        for i, half in enumerate(factor * (told.mean() + kept * (told - told.mean()))):
            density = np.where(grid > 0, np.exp(-np.square(grid - half) / (2 * error * kept)), 0.0)
            mean = (grid * density).sum() / density.sum()
            assert found[i] == pytest.approx(2 * mean / (1 + mean), abs=0.01)  # all have as many examples


def test_reports_are_corrected_by_what_members_agree_in() -> None:
    """Up as far as they do; down only where groups share nothing, and not far."""
    signal = np.linspace(0.1, 0.3, 12)
    scale, two, one = np.sqrt(np.outer(signal, signal)), np.arange(12) % 2, np.zeros(12, int)
    same = np.equal.outer(two, two)

    def factor(inside: float, between: float, groups: np.ndarray = two) -> float:
        return correction(np.where(same, inside, between) * scale, signal, groups)

    for between in (-0.2, 0.0, 0.5, 1.4):
        assert factor(1.6, between) == pytest.approx(1.6)
    assert factor(0.8, 0.0) == pytest.approx(0.8)
    assert factor(0.4, 0.0) == factor(0.4, -0.3) == 0.7
    assert factor(0.8, 0.3) == factor(0.8, 0.8, one) == 1.0
    assert factor(1.6, 1.6, one) == pytest.approx(1.6)
    assert factor(1.6, 0.0, np.arange(12)) == 1.0


def test_strangers_leave_noise_to_be_seen() -> None:
    """Clients that are all alone have a mean together: not one for each pair, of which nothing is left."""
    rng = np.random.default_rng(0)
    for value in (0.0, 0.2):
        noise = np.triu(rng.normal(0, 0.1, (40, 40)), 1)
        cosine = value + noise + noise.T
        assert blocks(cosine, np.arange(40)).noise == pytest.approx(0.01, rel=0.2)
        pair = np.array([0, 0, *range(2, 40)])
        assert blocks(cosine, pair).noise == pytest.approx(0.01, rel=0.2)
    assert blocks(np.array([[1.0, -0.4], [-0.4, 1.0]]), np.arange(2)).noise == pytest.approx(PRIOR**2)


def test_a_hundred_strangers_keep_their_own() -> None:
    """Between two next to nothing is expected, and that does not add up."""
    _, found = weights(start(100), came(21, np.eye(100), 1.5))
    assert np.median(found.diagonal()) > 0.8


def test_of_who_shows_too_little_the_cosines_say_nothing() -> None:
    labels, signal = np.arange(12) % 2, np.full(12, 0.2)
    signal[[0, 11]] = 0.002
    scale = np.sqrt(np.outer(signal, signal))
    groups = np.where(signal < 0.1, 20 + np.arange(12), labels)  # nobody's cosine with these is large
    expected = expect(np.equal.outer(labels, labels) * scale, scale, groups)
    blind = np.zeros((12, 12), bool)
    blind[[0, 11]] = blind[:, [0, 11]] = True
    np.fill_diagonal(blind, False)
    assert (expected.blind == blind).all()
    pairs = 20 / 45  # of ten clients in two groups
    assert expected.chance[blind] == pytest.approx(np.full(blind.sum(), pairs), abs=0.02)
    assert (expected.chance[~blind] == np.equal.outer(groups, groups)[~blind]).all()
    alone = expect(np.zeros((12, 12)), scale, np.arange(12))
    assert not alone.blind.any()


def test_who_shows_too_little_is_apart_and_follows() -> None:
    blind = np.zeros((6, 6), bool)
    blind[5, :5], blind[:5, 5] = True, True
    assert apart(np.array([0, 0, 0, 3, 3, 3]), blind).tolist() == [0, 0, 0, 3, 3, 11]
    assert apart(np.array([0, 0, 0, 3, 3, 5]), blind).tolist() == [0, 0, 0, 3, 3, 5]
    assert apart(np.array([0, 0, 0, 3, 3, 3]), ~np.eye(6, dtype=bool)).tolist() == [0, 0, 0, 3, 3, 3]
    given = np.array([[1, 1, 1, 0, 0, 0.0]] * 3 + [[0, 0, 0, 1, 1, 1]] * 2 + [[0, 0, 0, 1, 1, 1]]) / 3
    leads = [0, 0, 0, 0.5, 0.5, 0]

    def followed(labels: list[int], own: list[int], part: float) -> tuple[list[float], list[int]]:
        rows = given.copy()
        rows[5] = [0, 0, 0, part / 2, part / 2, 1 - part]
        found, joined = follow(rows, np.array(labels), np.array(own), blind)
        assert (found[:5] == rows[:5]).all()
        return found[5].tolist(), joined.tolist()

    for part in (0.0, 0.4, 0.6):  # in the group: whatever it would take
        assert followed([0, 0, 0, 3, 3, 3], [0, 0, 0, 3, 3, 11], part) == (leads, [0, 0, 0, 3, 3, 3])
    assert followed([0, 0, 0, 3, 3, 5], [0, 0, 0, 3, 3, 5], 0.6) == (leads, [0, 0, 0, 3, 3, 3])
    row, joined = followed([0, 0, 0, 3, 3, 5], [0, 0, 0, 3, 3, 5], 0.4)
    assert (np.round(row, 9).tolist(), joined) == ([0, 0, 0, 0.2, 0.2, 0.6], [0, 0, 0, 3, 3, 5])
    blind[:] = False
    assert followed([0, 0, 0, 3, 3, 5], [0, 0, 0, 3, 3, 5], 0.6)[1] == [0, 0, 0, 3, 3, 5]


def test_a_client_of_noise_follows_the_group_that_it_is_likeliest_in() -> None:
    """A tenth of its task's length shows in noise as long as the others', and its model is theirs then."""
    labels = (0, 1) * 6
    tasks = kinds(*labels)
    tasks[9] *= 0.1
    rule = Aggregator(RULE.subject, weighting=Agreement(), combine=FactorWise("followers"))
    state, last = rule.init(jnp.zeros(WIDE.size), 12), 0.0
    for seed in range(5):
        state, found = weights(state, came(40 + seed, tasks, 1.0), rule)
        odd = np.asarray(labels) == 1
        taken = found[9, odd].sum() - found[9, 9]
        assert taken >= last - 0.05
        last = taken
    assert (found[9, 9], taken) == (0.0, pytest.approx(1.0, abs=0.05))
    assert found[odd][:, 9].max() < 0.05
    models = np.asarray(state.personal)
    assert np.linalg.norm(models[9] - models[1]) < 0.2 * np.linalg.norm(models[1] - models[0])


def test_a_few_examples_are_taken_at_what_all_report() -> None:
    """Signal of 1, noise of κ for each example: many that report with an error know κ."""
    rng, examples, noise = np.random.default_rng(0), np.geomspace(8, 512, 60).astype(int), 40.0
    right = examples / (examples + 2 * noise)
    told = right + 0.1 * rng.normal(size=60)
    truth = examples / (examples + noise)
    own = np.clip(told, 0, 1)
    found = shares(told, examples, 0.01)
    assert np.sqrt(np.square(found - truth).mean()) < 0.05
    assert np.sqrt(np.square(2 * own / (1 + own) - truth).mean()) > 0.08
    missing = shares(np.where(np.arange(60) == 3, np.nan, told), examples, 0.01)
    assert missing[3] == pytest.approx(truth[3], abs=0.05)


def test_clients_that_differ_by_more_than_errors_keep_their_reports() -> None:
    told = np.array([0.9, 0.1] * 6)
    found = shares(told, np.full(12, 32), 1e-4)
    assert found == pytest.approx(2 * told / (1 + told), abs=0.01)
    assert np.ptp(shares(told, np.full(12, 32), 1.0)) < 1e-9


def test_shares_are_those_of_whole_task_vectors() -> None:
    """Signal of length 1 and noise of 1.5: 1 / (1 + 2.25) of the energy."""
    told = came(13, kinds(*(0,) * 40), 1.5).halves
    assert shares(np.asarray(told), np.full(40, 32), 0.0).mean() == pytest.approx(1 / 3.25, abs=0.02)


def test_it_goes_on_from_a_file_bit_for_bit(tmp_path: Any) -> None:
    labels = (0, 0, 1, 1, 1, 2, 2, 2)
    state, _ = weights(start(8), came(14, kinds(*labels), 2.0))
    save_state(state, tmp_path / "state.safetensors")
    second = came(15, kinds(*labels), 2.0)
    there = load_state(tmp_path / "state.safetensors")
    (one, found), (other, again) = weights(state, second), weights(there, second)
    assert (found == again).all()
    for name in ("labels", "tested"):
        assert (one.of("weighting")[name] == other.of("weighting")[name]).all()


def test_what_it_cannot_take_is_refused() -> None:
    with pytest.raises(UserError, match="halves of their examples"):
        weights(start(8), came(16, kinds(*(0,) * 8))._replace(halves=None))
    (line,) = Aggregator(similarity=InnerProduct(), weighting=Agreement()).problems()
    assert line == "aggregator.similarity: Agreement cannot take InnerProduct; set it to fedpl.server.Cosine"
    (line,) = Aggregator(weighting=Trimmed(Agreement())).problems()
    assert line.startswith("aggregator.weighting.inner: Agreement looks at inner products")
    found = Aggregator(weighting=Agreement(alike=0.0, sure=-1.0, steady=-1.0, reports=0)).problems()
    assert [line.split(":")[0].removeprefix("aggregator.weighting.") for line in found] == [
        "alike",
        "sure",
        "steady",
        "reports",
    ]
    assert (RULE.weighting.halves, Trimmed(Agreement(reports=5)).halves) == (3, 5)
