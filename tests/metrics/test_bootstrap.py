"""ConfidenceInterval and tests against published values, hand-worked tables and closed forms."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv

from leukokit.metrics.bootstrap import (
    BLOCK,
    balanced_accuracies,
    bootstrap_photos,
    mcnemar,
    paired_bootstrap,
    photo_codes,
    photo_draws,
)
from leukokit.metrics.intervals import (
    beta_quantile,
    clopper_pearson,
    mean_interval,
    percentile_interval,
    wilson,
)

shares = st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("k", "low", "high"),
    [(0, 0.0, 3.62), (1, 0.03, 5.45), (5, 1.64, 11.28), (10, 4.90, 17.62), (50, 39.83, 60.17)],
)
def test_exact_limits_are_those_of_the_differential_table(k: int, low: float, high: float) -> None:
    assert [100 * limit for limit in clopper_pearson(k, 100)] == pytest.approx([low, high], abs=0.006)


def test_exact_limits_at_the_ends_have_a_closed_form() -> None:
    assert clopper_pearson(0, 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    assert clopper_pearson(20, 20) == pytest.approx((0.025 ** (1 / 20), 1.0))


def test_wilson_of_a_textbook() -> None:
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(shares)
def test_limits_hold_the_share_and_mirror_each_other(share: tuple[int, int]) -> None:
    k, n = share
    for limits in (wilson, clopper_pearson):
        low, high = limits(k, n)
        assert 0 <= low <= (k / n if n else 0.5) <= high <= 1
        assert limits(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert (k > 0 or low == 0) and (k < n or high == 1)


@given(shares)
def test_wilson_limits_solve_the_score_equation(share: tuple[int, int]) -> None:
    k, n = share
    if n == 0:
        return
    for p in wilson(k, n):
        assert (k / n - p) ** 2 == pytest.approx(1.959963985**2 * p * (1 - p) / n, abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_what_is_no_share_is_refused(k: int, n: int) -> None:
    for limits in (wilson, clopper_pearson):
        with pytest.raises(ValueError, match="no share"):
            limits(k, n)


def test_mean_of_estimates() -> None:
    # One estimate keeps its limits; four alike have half the width.
    assert mean_interval([0.9], [(0.8, 0.95)]) == pytest.approx((0.8, 0.95))
    assert mean_interval([0.9] * 4, [(0.8, 0.96)] * 4) == pytest.approx((0.85, 0.93))
    low, high = mean_interval([1.0, 1.0], [wilson(10, 10)] * 2)
    assert wilson(10, 10)[0] < low < 1 and high == 1
    with pytest.raises(ValueError, match="no estimate"):
        mean_interval([], [])


def test_mcnemar_by_hand() -> None:
    # 9 cells against 1: p = 2 (C(10,0) + C(10,1)) / 2^10.
    first = np.array([True] * 9 + [False] + [True] * 30 + [False] * 5)
    second = np.array([False] * 9 + [True] + [True] * 30 + [False] * 5)
    result = mcnemar(first, second)
    assert (result.only_a, result.only_b) == (9, 1)
    assert result.p == pytest.approx(22 / 1024)
    assert mcnemar(second, first).p == result.p


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_binomial_tail(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array([pair[side] for pair in pairs], dtype=bool) for side in (0, 1))
    only_a, only_b = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert mcnemar(first, second) == pytest.approx((only_a, only_b, min(1.0, 2 * tail)))


@pytest.mark.parametrize("second", [np.ones(4, bool), np.array([1, 0, 1]), np.ones((3, 1), bool)])
def test_mcnemar_refuses_what_is_no_pair(second: np.ndarray) -> None:
    with pytest.raises(ValueError, match="truth values"):
        mcnemar(np.ones(3, bool), second)


def test_equal_photo_names_in_two_groups_are_two_photographs() -> None:
    photos, groups = ["a", "a", "b", "a"], ["x", "y", "x", "x"]
    assert len(np.unique(photo_codes(photos))) == 2
    codes = photo_codes(photos, groups)
    assert len(np.unique(codes)) == 3 and codes[0] == codes[3]
    assert photo_codes([]).shape == (0,)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 50))
def test_draws_keep_the_size_of_every_stratum(strata: list[int], resamples: int) -> None:
    drawn = np.concatenate(list(photo_draws(strata, resamples)))
    assert drawn.shape == (resamples, len(strata))
    assert (np.sort(np.array(strata)[drawn], axis=1) == sorted(strata)).all()


def test_many_photographs_are_drawn_in_blocks() -> None:
    blocks = list(photo_draws(np.zeros(BLOCK // 3), 7))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert not np.array_equal(blocks[0], blocks[1])


def mean_of(totals: np.ndarray) -> np.ndarray:
    return np.asarray(totals[:, 0] / totals[:, 1])


def test_bootstrap_of_a_mean_has_the_standard_error_of_its_photographs() -> None:
    rng = np.random.default_rng(3)
    of_photo = rng.random(200)
    # Ten copies a photograph: no more evidence than one.
    values = np.repeat(of_photo, 10)
    samples = bootstrap_photos(
        np.stack([values, np.ones(2000)], axis=1), np.repeat(np.arange(200), 10), mean_of, resamples=4000
    )
    assert samples.mean() == pytest.approx(of_photo.mean(), abs=0.002)
    assert samples.std() == pytest.approx(of_photo.std() / math.sqrt(200), rel=0.05)
    low, high = percentile_interval(samples)
    assert (low, high) == pytest.approx(
        (samples.mean() - 1.96 * samples.std(), samples.mean() + 1.96 * samples.std()), abs=0.004
    )


def test_bootstrap_does_not_lose_a_rare_class() -> None:
    labels = np.array([0] * 50 + [1] * 2)
    # Every photograph also holds a cell of class 0: the rare class is what it stands with.
    photos = np.concatenate([np.arange(50), [0, 1]])
    values = np.eye(2)[labels]
    free = bootstrap_photos(values, photos, lambda totals: totals)
    kept = bootstrap_photos(values, photos, lambda totals: totals, labels)
    assert (free[:, 1] == 0).any()
    assert (kept[:, 1] == 2).all() and (kept[:, 0] == 50).all()


def test_bootstrap_is_repeated_by_its_seed() -> None:
    values = np.random.default_rng(0).random((30, 2))
    photos = np.arange(30) // 3

    def first(totals: np.ndarray) -> np.ndarray:
        return np.asarray(totals[:, 0])

    samples = bootstrap_photos(values, photos, first, seed=5)
    assert np.array_equal(samples, bootstrap_photos(values, photos, first, seed=5))
    assert not np.array_equal(samples, bootstrap_photos(values, photos, first, seed=6))


def test_bootstrap_refuses_what_does_not_fit() -> None:
    for values, photos in (
        (np.ones(3), np.arange(3)),
        (np.ones((3, 1)), np.arange(2)),
        (np.ones((0, 1)), []),
    ):
        with pytest.raises(ValueError, match="N at least 1"):
            bootstrap_photos(values, photos, mean_of)


def test_balanced_accuracy_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 7])
    correct = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [1, 1], [0, 1], [1, 0]])
    values, samples = balanced_accuracies(correct, labels, np.arange(7))
    assert values == pytest.approx([(3 / 4 + 1 / 2 + 1) / 3, (2 / 4 + 1 + 0) / 3])
    assert samples.shape == (1000, 2)
    # Group x: recalls 1 and 1/2; group y: 1/2 of class 0 and 1 of class 7.
    groups = np.array(["x", "x", "y", "y", "x", "x", "y"])
    values, _ = balanced_accuracies(correct[:, :1], labels, np.arange(7), groups)
    assert values == pytest.approx([(3 / 4 + 3 / 4) / 2])


def test_paired_difference_of_equals_is_nothing() -> None:
    rng = np.random.default_rng(0)
    right, labels = rng.random(120) < 0.7, rng.integers(3, size=120)
    assert paired_bootstrap(right, right, labels, np.arange(120)) == (0.0, 0.0, 0.0, 1.0)


def test_paired_difference_is_seen_and_mirrored() -> None:
    rng = np.random.default_rng(0)
    labels, photos = rng.integers(5, size=600), np.arange(600) // 2
    worse = rng.random(600) < 0.8
    better = worse | (rng.random(600) < 0.3)
    one, other = (paired_bootstrap(*pair, labels, photos) for pair in ((better, worse), (worse, better)))
    assert 0 < one.low < one.value < one.high
    assert one.p == pytest.approx(2 / 2001)
    assert other == pytest.approx((-one.value, -one.high, -one.low, one.p))


def test_copies_of_a_photograph_are_no_new_evidence() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    first, second = rng.random(60) < 0.9, rng.random(60) < 0.8
    photos = np.arange(60)
    once = paired_bootstrap(first, second, labels, photos)
    many = [np.repeat(part, 20) for part in (first, second, labels, photos)]
    copied = paired_bootstrap(many[0], many[1], many[2], many[3])
    assert copied == pytest.approx(once)
    taken_for_many = paired_bootstrap(many[0], many[1], many[2], np.arange(1200))
    assert taken_for_many.high - taken_for_many.low < 0.5 * (once.high - once.low)


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    labels, photos = np.arange(200) % 4, np.arange(200)
    p = []
    for _ in range(200):
        first, second = rng.random((2, 200)) < 0.8
        p.append(paired_bootstrap(first, second, labels, photos, resamples=300).p)
    # Binomial(200, 0.05): more than 22 has a chance of 1 in 2,000.
    assert np.mean(np.array(p) < 0.05) <= 22 / 200
    assert 0.35 < np.mean(np.array(p) < 0.5) < 0.65


def test_shares_of_runs_are_averaged() -> None:
    labels, photos = np.array([0, 0, 1, 1]), np.arange(4)
    first = np.array([1, 2 / 3, 1 / 3, 1])
    difference = paired_bootstrap(first, np.zeros(4), labels, photos)
    assert difference.value == pytest.approx((5 / 6 + 2 / 3) / 2)


def test_mean_over_groups_is_not_ruled_by_the_largest() -> None:
    labels = np.zeros(110, int)
    groups = np.array(["large"] * 100 + ["small"] * 10)
    first, second = groups == "large", groups == "small"
    assert paired_bootstrap(first, second, labels, np.arange(110)).value == pytest.approx(90 / 110)
    assert paired_bootstrap(first, second, labels, np.arange(110), groups).value == pytest.approx(0)


def test_thousands_of_cells_take_less_than_two_seconds() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3000)) < 0.8
    start = time.perf_counter()
    paired_bootstrap(first, second, rng.integers(5, size=3000), np.arange(3000), rng.integers(5, size=3000))
    assert time.perf_counter() - start < 2


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_draws_of_mixed_photographs_stay_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    values, samples = balanced_accuracies(
        rng.random((count, 2)) < 0.5,
        rng.integers(-1, 4, size=count),
        rng.integers(6, size=count),
        rng.integers(2, size=count),
        resamples=50,
    )
    assert ((values >= 0) & (values <= 1)).all()
    assert np.isfinite(samples).all() and ((samples >= 0) & (samples <= 1 + 1e-12)).all()


@settings(deadline=None)
@given(st.floats(0.5, 1e6), st.floats(0.5, 1e6), st.sampled_from([0.025, 0.5, 0.975]))
def test_quantiles_are_those_of_scipy(a: float, b: float, share: float) -> None:
    assert beta_quantile(a, b, share) == pytest.approx(float(betaincinv(a, b, share)), rel=1e-8)
