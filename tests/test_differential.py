"""Shares and limits of a differential count, against Rümke's table."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from leukokit.differential import MIN_LEUKOCYTES, differential
from leukokit.metrics.intervals import clopper_pearson
from leukokit.taxonomy import ERYTHROBLAST, LEUKOCYTE_CLASSES, UNCLASSIFIED, UNKNOWN

COUNTS = st.dictionaries(
    st.sampled_from([*LEUKOCYTE_CLASSES, UNCLASSIFIED, ERYTHROBLAST, UNKNOWN, "blast"]), st.integers(0, 300)
)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0, 3.62), (1, 0.03, 5.45), (5, 1.64, 11.28), (10, 4.90, 17.62), (50, 39.83, 60.17)],
)
def test_limits_are_those_of_ruemke(count: int, low: float, high: float) -> None:
    share = differential({"neutrophil": 100 - count, "basophil": count}).to_json()["classes"]["basophil"]
    assert share == {"count": count, "percent": float(count), "interval": [low, high], "bounds": [count] * 2}
    mirrored = differential({"basophil": 100 - count, "neutrophil": count}).shares["basophil"]
    assert mirrored.low == pytest.approx(100 - high, abs=0.006)
    assert mirrored.high == pytest.approx(100 - low, abs=0.006)


@given(st.integers(1, 400), st.data())
def test_limits_are_exact(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = clopper_pearson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    # At a limit, what was counted or anything further out is just 2.5% likely.
    assert low == 0 if k == 0 else binom.sf(k - 1, n, low) == pytest.approx(0.025, rel=1e-6)
    assert high == 1 if k == n else binom.cdf(k, n, high) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_no_share_has_no_limits(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(k, n)


def test_unclassified_and_erythroblasts_are_in_no_percentage() -> None:
    count = differential({"neutrophil": 60, "lymphocyte": 20, ERYTHROBLAST: 12, UNCLASSIFIED: 30})
    assert (count.n, count.unclassified, count.erythroblasts) == (80, 30, 12)
    assert count.erythroblasts_per_100 == pytest.approx(15)
    assert {name: share.percent for name, share in count.shares.items()} == {
        "neutrophil": 75,
        "lymphocyte": 25,
    }
    assert count.below_minimum


def test_erythroblasts_that_are_not_looked_for_are_not_none_at_all() -> None:
    assert differential({"neutrophil": 5}).erythroblasts is None
    assert differential({"neutrophil": 5}).erythroblasts_per_100 is None
    assert differential({"neutrophil": 5, ERYTHROBLAST: 0}).erythroblasts_per_100 == 0
    # Of no leukocytes, there is no ratio.
    assert differential({"neutrophil": 0, ERYTHROBLAST: 2}).erythroblasts_per_100 is None


@pytest.mark.parametrize(("unknown", "warns"), [(0, False), (5, False), (6, True), (100, True)])
def test_more_than_five_percent_unknown_warn(unknown: int, warns: bool) -> None:
    count = differential({"neutrophil": 100 - unknown, UNCLASSIFIED: 0, UNKNOWN: unknown})
    assert (count.n, count.unknown) == (100 - unknown, unknown)
    assert (count.warning is not None) is warns
    assert count.to_json()["warning"] == count.warning


def test_a_classifier_without_unknown_never_warns() -> None:
    count = differential({"neutrophil": 1, UNCLASSIFIED: 99})
    assert (count.unknown, count.unknown_share, count.warning) == (None, 0.0, None)


@pytest.mark.parametrize(("n", "below_minimum"), [(0, True), (99, True), (100, False), (101, False)])
def test_few_leukocytes_are_flagged(n: int, below_minimum: bool) -> None:
    assert MIN_LEUKOCYTES == 100
    # What is not classified does not help.
    assert differential({"neutrophil": n, UNCLASSIFIED: 50, ERYTHROBLAST: 50}).below_minimum is below_minimum


def test_of_nothing_nothing_is_known() -> None:
    share = differential({"neutrophil": 0, UNCLASSIFIED: 3}).shares["neutrophil"]
    assert (share.count, share.percent, share.low, share.high) == (0, None, 0, 100)
    assert differential({}).to_json() == {
        "n": 0,
        "below_minimum": True,
        "withheld": False,
        "classes": {},
        "unclassified": 0,
        "unknown": None,
        "warning": None,
        "erythroblasts": None,
        "erythroblasts_per_100": None,
    }


def test_counts_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        differential({"neutrophil": 3, "basophil": -1})


@given(COUNTS)
def test_every_cell_is_counted_once(counts: dict[str, int]) -> None:
    before = dict(counts)
    count = differential(counts)
    assert counts == before
    apart = count.unclassified + (count.erythroblasts or 0) + (count.unknown or 0)
    assert count.n + apart == sum(counts.values())
    assert list(count.shares) == [
        name for name in counts if name not in (UNCLASSIFIED, ERYTHROBLAST, UNKNOWN)
    ]
    assert not count.n or sum(s.percent or 0 for s in count.shares.values()) == pytest.approx(100)
    document = count.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_percentages_are_withheld_where_many_cells_have_no_class() -> None:
    count = differential({"neutrophil": 0, "basophil": 2, UNCLASSIFIED: 11})
    assert count.is_withheld and count.shares["basophil"].percent == 100
    document = count.to_json()
    assert document["withheld"] and document["classes"]["basophil"] == {
        **{"count": 2, "percent": None, "interval": None, "bounds": [15.38, 100.0]},
    }
    assert document["classes"]["neutrophil"]["bounds"] == [0.0, 84.62]
    assert count.withheld_reason is not None and count.withheld_reason.startswith(
        "11 of 13 leukocytes have no"
    )
    assert differential({"neutrophil": 2, UNKNOWN: 1}).is_withheld
    few = differential({"neutrophil": 4, UNCLASSIFIED: 1})
    assert not few.is_withheld and few.withheld_reason is None and not differential({}).is_withheld


@given(COUNTS)
def test_bounds_hold_whatever_class_the_others_have(counts: dict[str, int]) -> None:
    count = differential(counts)
    for name, share in count.shares.items():
        low, high = count.bounds(name)
        assert 0 <= low <= high <= 100
        assert share.percent is None or low - 1e-9 <= share.percent <= high + 1e-9
