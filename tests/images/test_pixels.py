"""One way to resize a picture: shapes, grey values and identity."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.images.pixels import resize_image, scale_image

SIDES = st.integers(1, 60)


@settings(deadline=None, max_examples=60)
@given(height=SIDES, width=SIDES, new_height=SIDES, new_width=SIDES, grey=st.integers(0, 255))
def test_flat_picture_stays_flat_at_any_size(
    height: int, width: int, new_height: int, new_width: int, grey: int
) -> None:
    picture = np.full((height, width, 3), grey, np.uint8)
    answer = resize_image(picture, new_width, new_height)
    assert answer.shape == (new_height, new_width, 3)
    assert answer.dtype == np.uint8
    assert (answer == grey).all()


def test_same_size_is_not_copied() -> None:
    picture = np.zeros((3, 5, 3), np.uint8)
    assert resize_image(picture, 5, 3) is picture
    assert scale_image(picture, 1.0) is picture


def test_shrinking_averages_what_it_leaves_out() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    answer = scale_image(stripes, 0.25)
    assert answer.shape == (16, 16, 3)
    assert (np.abs(answer.astype(int) - 50) <= 1).all()


def test_growing_interpolates() -> None:
    edge = np.zeros((4, 4, 3), np.uint8)
    edge[:, 2:] = 200
    answer = scale_image(edge, 4.0)
    assert len(np.unique(answer)) > 4
    assert answer[8, 0, 0] < 10 and answer[8, -1, 0] > 190


def test_colours_stay_in_their_channels() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0] = 250
    for factor in (0.5, 3.0):
        assert (scale_image(picture, factor) == (250, 0, 0)).all()


@given(height=SIDES, width=SIDES, factor=st.floats(0.001, 3))
def test_scaled_has_at_least_one_pixel(height: int, width: int, factor: float) -> None:
    answer = scale_image(np.zeros((height, width, 3), np.uint8), factor)
    assert answer.shape == (max(1, round(height * factor)), max(1, round(width * factor)), 3)
