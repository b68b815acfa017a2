"""Fields of one slide that share cells are recognised, and others are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import Cells
from leukokit.overlap import Constellation, Overlap, find_overlap
from leukokit.synthetic.smear import draw_smear
from leukokit.taxonomy import ERYTHROCYTE, KINDS, LEUKOCYTE

SIZE = (700, 500)


def slide(seed: int) -> Cells:
    drawn = draw_smear(seed, 1600, 1100, 14, 40.0)
    kinds = np.array([KINDS.index(kind) for kind in drawn.kinds])
    return Cells(drawn.boxes, kinds, np.ones(len(kinds), np.float32))


def overlap_of(
    first: Cells, second: Cells, sizes: tuple[tuple[int, int], tuple[int, int]] = (SIZE, SIZE)
) -> Overlap | None:
    return find_overlap(Constellation(first, sizes[0]), Constellation(second, sizes[1]))


SLIDES = [slide(seed) for seed in range(3)]


def photograph(cells: Cells, left: int, top: int, seed: int = 0, lost: float = 0.1) -> Cells:
    """The cells of a field as a detector finds them: boxes a pixel off, some cells missed."""
    rng = np.random.default_rng(seed)
    low, high = cells.centres - (left, top), (left + SIZE[0], top + SIZE[1]) - cells.centres
    kept = (low > 0).all(axis=1) & (high > 0).all(axis=1) & (rng.random(len(cells)) >= lost)
    boxes = cells.boxes[kept] - np.array([left, top, left, top], np.float32)
    boxes = np.sort((boxes + rng.normal(0, 1, boxes.shape)).reshape(-1, 2, 2), axis=1)
    return Cells(boxes.reshape(-1, 4).astype(np.float32), cells.kinds[kept], cells.scores[kept])


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(SLIDES),
    st.integers(0, 900),
    st.integers(0, 600),
    st.integers(-350, 350),
    st.integers(-250, 250),
)
def test_fields_that_share_leukocytes_are_found(cells: Cells, x: int, y: int, dx: int, dy: int) -> None:
    x2, y2 = min(max(x + dx, 0), 900), min(max(y + dy, 0), 600)
    first, second = photograph(cells, x, y, 1), photograph(cells, x2, y2, 2)
    overlap = overlap_of(first, second)
    places = [
        {tuple(np.round(c.centres[n] + o, -1)) for n in np.flatnonzero(c.kinds == LEUKOCYTE)}
        for c, o in ((first, (x, y)), (second, (x2, y2)))
    ]
    area = (SIZE[0] - abs(x2 - x)) * (SIZE[1] - abs(y2 - y))
    if overlap is None:
        assert not (places[0] & places[1]) or area < 0.3 * SIZE[0] * SIZE[1]
        return
    assert overlap.shift == pytest.approx((x2 - x, y2 - y), abs=2)
    for i, j in overlap.leukocytes:
        assert first.centres[i] + (x, y) == pytest.approx(second.centres[j] + (x2, y2), abs=8)
    assert len(set(overlap.leukocytes[:, 0].tolist())) == len(overlap.leukocytes)


def test_fields_of_different_places_are_not() -> None:
    fields = [photograph(cells, x, y, 3) for cells in SLIDES for x in (0, 800) for y in (0, 550)]
    pairs = [(i, j) for i in range(len(fields)) for j in range(i)]
    assert all(overlap_of(fields[i], fields[j]) is None for i, j in pairs)


def test_a_field_taken_twice_is_one() -> None:
    first, second = photograph(SLIDES[0], 300, 200, 4), photograph(SLIDES[0], 300, 200, 5)
    overlap = overlap_of(first, second)
    assert overlap is not None and overlap.shift == pytest.approx((0, 0), abs=2)
    assert overlap.erythrocytes > 30


def test_fields_without_a_ruler_or_of_another_magnification_are_left_alone() -> None:
    first = photograph(SLIDES[0], 300, 200, 4)
    larger = Cells(first.boxes * 2, first.kinds, first.scores)
    assert overlap_of(first, larger, (SIZE, (1400, 1000))) is None
    assert overlap_of(first, Cells.empty()) is None
    assert overlap_of(first, first[first.kinds != ERYTHROCYTE]) is None
    assert overlap_of(first[first.kinds != LEUKOCYTE], first) is None
