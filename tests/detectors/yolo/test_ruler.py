"""The ruler: how large the erythrocytes are, and where to look for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, Cells
from leukokit.detectors.yolo.ruler import (
    PROBE_SIDE,
    measure_diameter,
    predict_diameter,
    probes,
)
from leukokit.images.pixels import RGBImage
from leukokit.images.standardize import estimate_standardization
from leukokit.smear import Smear
from leukokit.synthetic.smear import draw_smear
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE, PLATELET


def cells(*given: tuple[int, float, float]) -> Cells:
    """Square cells from (kind, side, score)."""
    boxes = np.array([[0, 0, side, side] for _, side, _ in given], np.float32)
    kinds = np.array([kind for kind, _, _ in given], np.int64)
    return Cells(boxes, kinds, np.array([score for _, _, score in given], np.float32))


def test_erythrocytes_are_the_ruler() -> None:
    seen = cells(*[(ERYTHROCYTE, side, 0.9) for side in (40, 44, 60)], (LEUKOCYTE, 100, 0.9))
    assert measure_diameter(seen, 16, 120) == (44.0, 3)


def test_cells_outside_the_trusted_sizes_do_not_count() -> None:
    seen = cells(*[(ERYTHROCYTE, side, 0.9) for side in (40, 44, 48, 5, 6, 7, 8, 300, 400, 500, 600)])
    assert measure_diameter(seen, 16, 120) == (44.0, 3)


def test_leukocytes_stand_in_for_missing_erythrocytes() -> None:
    seen = cells((LEUKOCYTE, 78, 0.9), (ERYTHROCYTE, 30, 0.9), (LEUKOCYTE, 400, 0.3))
    answer = measure_diameter(seen, 16, 120)
    assert answer is not None
    assert answer[0] == pytest.approx(78 / LEUKOCYTE_TO_ERYTHROCYTE, rel=1e-5)
    assert answer[1] == 1


@pytest.mark.parametrize(
    "seen",
    [
        Cells.empty(),
        cells((PLATELET, 20, 0.9), (PLATELET, 22, 0.9), (PLATELET, 24, 0.9)),
        cells((ERYTHROCYTE, 40, 0.9), (ERYTHROCYTE, 41, 0.9)),
        cells((LEUKOCYTE, 80, 0.4)),
    ],
)
def test_no_ruler_in_sight(seen: Cells) -> None:
    assert measure_diameter(seen, 16, 120) is None


@settings(deadline=None)
@given(st.integers(1, 30_000), st.integers(1, 30_000))
def test_probes_begin_with_the_whole_field_and_end_close_up(width: int, height: int) -> None:
    looks = list(probes(width, height))
    assert looks[0].region == (0, 0, width, height)
    assert looks[0].scale == min(1.0, PROBE_SIDE / max(width, height))
    assert len(looks) < 10
    assert any(look.scale == 1.0 for look in looks)
    for look in looks:
        left, top, right, bottom = look.region
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert max(right - left, bottom - top) * look.scale <= PROBE_SIDE + 2


def test_probes_come_closer_step_by_step() -> None:
    scales = [look.scale for look in probes(20_000, 10_000)]
    nearer = scales[: scales.index(1.0) + 1]
    assert all(1 < after / before <= 2.5 for before, after in pairwise(nearer))
    assert min(scales) < scales[0]


@pytest.mark.parametrize("diameter", [18.0, 40.0, 80.0])
def test_guess_is_near_the_diameter(diameter: float) -> None:
    drawn = draw_smear(5, round(14 * diameter), round(11 * diameter), 2, diameter)
    smear = Smear.from_array(drawn.image)
    guess = predict_diameter(replace(smear, standardization=estimate_standardization(smear.image)))
    assert guess is not None and diameter / 1.3 < guess < diameter * 1.3


@pytest.mark.parametrize("image", [np.full((40, 60, 3), 240, np.uint8), np.zeros((1, 1, 3), np.uint8)])
def test_nothing_is_guessed_of_an_empty_field(image: RGBImage) -> None:
    smear = Smear.from_array(image)
    assert predict_diameter(smear) is None
    assert predict_diameter(replace(smear, standardization=estimate_standardization(image))) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90), st.floats(0, 1))
def test_guess_of_noise_is_a_size_or_none(seed: int, height: int, width: int, share: float) -> None:
    noise = (np.random.default_rng(seed).random((height, width, 1)) < share) * np.full(3, 200, np.uint8)
    guess = predict_diameter(Smear.from_array(noise.astype(np.uint8)))
    assert guess is None or 2 < guess < 3 * max(height, width)
