"""Tiles part a field exactly, and a cell is counted once, by a tile that sees all of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import Cells
from leukokit.detectors.yolo.tiling import (
    SLACK_PX,
    Tile,
    in_core,
    suppress_enclosing,
    suppress_overlaps,
    tiles_of,
)
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE


@st.composite
def cuttings(draw: st.DrawFn) -> tuple[int, int, int, int]:
    side = draw(st.integers(4, 120))
    return draw(st.integers(1, 260)), draw(st.integers(1, 260)), side, draw(st.integers(0, side - 1))


@settings(deadline=None)
@given(cuttings())
def test_cores_part_the_field(cutting: tuple[int, int, int, int]) -> None:
    width, height, side, overlap = cutting
    side = max(side, overlap + 3)
    answered = np.zeros((height, width), int)
    for tile in tiles_of(width, height, side, overlap):
        left, top, right, bottom = tile.core
        assert left < right and top < bottom
        answered[top:bottom, left:right] += 1
    assert (answered == 1).all()


@settings(deadline=None)
@given(cuttings())
def test_regions_hold_their_cores_and_fit_the_field(cutting: tuple[int, int, int, int]) -> None:
    width, height, side, overlap = cutting
    for tile in tiles_of(width, height, side, overlap):
        left, top, right, bottom = tile.region
        assert 0 <= left <= tile.core[0] and tile.core[2] <= right <= width
        assert 0 <= top <= tile.core[1] and tile.core[3] <= bottom <= height
        assert right - left == min(side, width) and bottom - top == min(side, height)


@settings(deadline=None)
@given(cuttings())
def test_neighbours_share_the_overlap(cutting: tuple[int, int, int, int]) -> None:
    width, height, side, overlap = cutting
    tiles = tiles_of(width, height, side, overlap)
    for low, high in ((0, 2), (1, 3)):
        spans = sorted({(tile.region[low], tile.region[high]) for tile in tiles})
        for before, after in pairwise(spans):
            assert before[1] - after[0] >= overlap


@settings(deadline=None, max_examples=200)
@given(cuttings(), st.data())
def test_cell_no_larger_than_the_overlap_is_seen_whole(
    cutting: tuple[int, int, int, int], data: st.DataObject
) -> None:
    width, height, side, overlap = cutting
    size = [data.draw(st.integers(0, min(overlap, length)), label="side") for length in (width, height)]
    corner = [
        data.draw(st.integers(0, length - own), label="corner")
        for length, own in zip((width, height), size, strict=True)
    ]
    box = np.array([*corner, corner[0] + size[0], corner[1] + size[1]])
    centre = (box[:2] + box[2:]) / 2
    tiles = tiles_of(width, height, side, overlap)
    at_core = [t for t in tiles if (centre >= t.core[:2]).all() and (centre < t.core[2:]).all()]
    if (centre < (width, height)).all():
        assert len(at_core) == 1
    for tile in at_core:
        # Cores are cut at whole pixels: of an odd overlap, one side gets half a pixel less.
        assert (box[:2] >= np.array(tile.region[:2]) - 0.5).all()
        assert (box[2:] <= np.array(tile.region[2:]) + 0.5).all()
        assert in_core(tile, box[None].astype(np.float32)).all()


def test_field_that_fits_is_one_tile() -> None:
    assert tiles_of(300, 200, 300, 40) == [Tile((0, 0, 300, 200), (0, 0, 300, 200))]


@pytest.mark.parametrize(("side", "overlap"), [(10, 10), (10, 11), (10, -1)])
def test_overlap_that_leaves_no_step_is_refused(side: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        tiles_of(100, 100, side, overlap)


def test_tile_answers_for_centres_in_and_near_its_core() -> None:
    tile = Tile((0, 0, 200, 200), (50, 50, 100, 100))
    far = SLACK_PX + 1
    centres = np.array([[75, 75], [50, 50], [99, 99], [50 - far, 75], [75, 100 + far], [50 - 1, 75]])
    boxes = np.hstack([centres - 30, centres + 30]).astype(np.float32)
    assert in_core(tile, boxes).tolist() == [True, True, True, False, False, True]
    assert in_core(tile, np.empty((0, 4), np.float32)).tolist() == []


def pair(shift: float, kinds: tuple[int, int]) -> Cells:
    boxes = np.array([[0, 0, 100, 100], [shift, 0, 100 + shift, 100]], np.float32)
    return Cells(boxes, np.array(kinds), np.array([0.5, 0.9], np.float32))


# Two squares of 100 px that lie ``shift`` apart overlap by (100 - shift) / (100 + shift).
@pytest.mark.parametrize(
    ("shift", "kinds", "survivors"),
    [
        (20, (ERYTHROCYTE, ERYTHROCYTE), 1),
        (30, (ERYTHROCYTE, ERYTHROCYTE), 2),
        (20, (ERYTHROCYTE, LEUKOCYTE), 2),
        (8, (ERYTHROCYTE, LEUKOCYTE), 1),
    ],
)
def test_suppression_by_kind(shift: float, kinds: tuple[int, int], survivors: int) -> None:
    kept = suppress_overlaps(pair(shift, kinds), same_kind=0.6, any_kind=0.8)
    assert len(kept) == survivors
    assert kept.scores[0] == np.float32(0.9)
    assert kept.kinds[0] == kinds[1]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_suppression_leaves_no_overlap_and_loses_no_lone_cell(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 30, (count, 2))]).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32) / max(count, 1)
    cells = Cells(boxes, rng.integers(0, 3, count), scores.astype(np.float32))
    kept = suppress_overlaps(cells, same_kind=0.5, any_kind=0.7)
    assert (np.diff(kept.scores) <= 0).all()
    low = np.maximum(boxes[:, None, :2], kept.boxes[None, :, :2])
    shared = np.prod(np.clip(np.minimum(boxes[:, None, 2:], kept.boxes[None, :, 2:]) - low, 0, None), axis=2)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept_areas = np.prod(kept.boxes[:, 2:] - kept.boxes[:, :2], axis=1)
    overlaps = shared / (areas[:, None] + kept_areas[None] - shared)
    limits = np.where(cells.kinds[:, None] == kept.kinds[None], 0.5, 0.7)
    is_itself = scores[:, None] == kept.scores[None]
    for number in np.flatnonzero(is_itself.any(axis=1)):
        others = ~is_itself[number]
        assert (overlaps[number, others] <= limits[number, others] + 1e-5).all()
    for number in np.flatnonzero(~is_itself.any(axis=1)):
        others = [other for other in range(count) if other != number]
        x1, y1, x2, y2 = boxes[number]
        touching = [
            o
            for o in others
            if min(x2, boxes[o, 2]) > max(x1, boxes[o, 0])
            and min(y2, boxes[o, 3]) > max(y1, boxes[o, 1])
            and scores[o] > scores[number]
        ]
        assert touching, "a cell that overlaps no better one was left out"


def test_a_box_around_two_better_cells_is_none() -> None:
    left, right, around, part = [1, 1, 29, 29], [31, 1, 59, 29], [0, 0, 60, 30], [5, 5, 15, 15]
    boxes = np.array([left, right, around, part], np.float32)
    cells = Cells(boxes, np.full(4, LEUKOCYTE), np.array([0.9, 0.8, 0.7, 0.6]))
    assert suppress_enclosing(cells, LEUKOCYTE, 0.8).boxes.tolist() == [left, right, part]
    # A cell whose parts look like cells, too, has the best score; and one box may lie within another.
    better = Cells(boxes[[2, 0, 1]], cells.kinds[:3], cells.scores[:3])
    assert len(suppress_enclosing(better, LEUKOCYTE, 0.8)) == 3
    assert len(suppress_enclosing(cells[1:], LEUKOCYTE, 0.8)) == 3
    # Erythrocytes lie in heaps.
    assert len(suppress_enclosing(cells, ERYTHROCYTE, 0.8)) == 4
    assert len(suppress_enclosing(cells[:0], LEUKOCYTE, 0.8)) == 0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 25), st.floats(0.3, 0.95))
def test_boxes_around_cells_against_brute_force(seed: int, count: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 40, (count, 2))]).astype(np.float32)
    scores = np.sort(rng.uniform(0, 1, count))[::-1].astype(np.float32)
    cells = Cells(boxes, rng.integers(0, 3, count), scores.astype(np.float32))
    kept: list[int] = []
    for number in range(count):
        within = 0
        for other in kept:
            if cells.kinds[number] == cells.kinds[other] == LEUKOCYTE:
                a, b = boxes[number].astype(float), boxes[other].astype(float)
                wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                within += max(wide, 0) * max(high, 0) > share * (b[2] - b[0]) * (b[3] - b[1])
        if within < 2:
            kept.append(number)
    assert suppress_enclosing(cells, LEUKOCYTE, share).boxes.tolist() == boxes[kept].tolist()
