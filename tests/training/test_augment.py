"""Windows: boxes stay on their cells, whatever is done to the picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.images.pixels import RGBImage
from leukokit.training.augment import Window, cut, disturb, join, turn

COLOURS = [(250, 20, 20), (20, 250, 20), (20, 20, 250)]
"""A colour a kind, far from the background's grey."""


def painted(seed: int, width: int = 320, height: int = 240) -> Window:
    """A field of squares that do not touch, coloured by their kind."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 240, np.uint8)
    boxes, kinds = [], []
    for left in range(5, width - 60, 80):
        for top in range(5, height - 60, 80):
            x, y = left + int(rng.integers(0, 12)), top + int(rng.integers(0, 12))
            side = int(rng.integers(20, 45))
            kind = int(rng.integers(3))
            image[y : y + side, x : x + side] = COLOURS[kind]
            boxes.append([x, y, x + side, y + side])
            kinds.append(kind)
    return Window(image, np.array(boxes, np.float32), np.array(kinds, np.int64))


def colour_at(image: RGBImage, kind: int) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(image.astype(int) - COLOURS[kind]).max(axis=2) < 90)


def assert_boxes_are_on_their_squares(window: Window, px: float) -> None:
    height, width = window.image.shape[:2]
    assert window.boxes.dtype == np.float32
    assert len(window.boxes) == len(window.kinds)
    for box, kind in zip(window.boxes, window.kinds, strict=True):
        x1, y1, x2, y2 = box
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        near = np.s_[max(0, round(y1 - 6)) : round(y2 + 6), max(0, round(x1 - 6)) : round(x2 + 6)]
        rows, columns = np.nonzero(colour_at(window.image[near], int(kind)))
        assert len(rows), "no pixel of the cell's colour under its box"
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
        found += np.tile([near[1].start, near[0].start], 2)
        assert np.abs(found - box).max() <= px


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.35, 2.0),
    height=st.integers(64, 200),
    width=st.integers(64, 200),
)
def test_cells_stay_under_their_boxes_when_cut_and_turned(
    seed: int, scale: float, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    window = cut(painted(seed % 7), scale, (height, width), 0.25, rng)
    assert window.image.shape == (height, width, 3)
    assert_boxes_are_on_their_squares(window, px=3.5)
    turned = turn(window, rng)
    assert sorted(turned.image.shape[:2]) == sorted((height, width))
    assert_boxes_are_on_their_squares(turned, px=3.5)
    assert len(turned.boxes) == len(window.boxes)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_no_cell_in_sight_is_left_without_a_box(seed: int) -> None:
    window = cut(painted(seed % 7), 1.0, (128, 128), 0.25, np.random.default_rng(seed))
    free = np.ones((128, 128), bool)
    for x1, y1, x2, y2 in window.boxes:
        free[max(0, int(y1) - 3) : int(y2) + 4, max(0, int(x1) - 3) : int(x2) + 4] = False
    # Near an edge there may be the rest, less than a quarter, of a cell of up to 45 px.
    inner = np.s_[28:-28, 28:-28]
    middle = window.image[inner][free[inner]]
    assert (middle.min(axis=1, initial=255) > 150).all()


def test_field_smaller_than_the_window_is_padded_with_background() -> None:
    small = painted(1, 120, 100)
    window = cut(small, 1.0, (256, 256), 0.25, np.random.default_rng(0))
    assert len(window.boxes) == len(small.boxes)
    assert_boxes_are_on_their_squares(window, px=3.5)
    assert (window.image[0] == 240).all() or (window.image[-1] == 240).all()


def test_eight_turns_all_occur() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[2:8, 4:20] = 255
    window = Window(image, np.array([[4, 2, 20, 8]], np.float32), np.array([1]))
    seen = {turn(window, np.random.default_rng(seed)).image.tobytes() for seed in range(100)}
    assert len(seen) == 8


@pytest.mark.parametrize("axis", [0, 1])
def test_joined_windows_keep_their_cells(axis: int) -> None:
    first, second = painted(1, 200, 160), painted(2, 200, 160)
    joined = join([first, second], axis)
    assert joined.image.shape[axis] == 2 * first.image.shape[axis]
    assert len(joined.boxes) == len(first.boxes) + len(second.boxes)
    assert_boxes_are_on_their_squares(joined, px=0.01)


def test_field_without_cells() -> None:
    empty = Window(np.full((90, 90, 3), 240, np.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64))
    rng = np.random.default_rng(0)
    window = turn(cut(empty, 1.5, (64, 64), 0.25, rng), rng)
    assert window.boxes.shape == (0, 4)
    assert (window.image == 240).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_disturbing_changes_the_picture_not_its_form(seed: int) -> None:
    image = painted(0).image
    before = image.copy()
    first, second = (disturb(image, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == image.shape and first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert np.array_equal(image, before)
    assert not np.array_equal(first, image)
