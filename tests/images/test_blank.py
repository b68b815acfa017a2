"""Parts without smear are found by themselves, and change nothing elsewhere."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from leukokit.cells import Cells
from leukokit.images.blank import find_blank
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.images.standardize import estimate_standardization
from leukokit.pipeline import Pipeline
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.synthetic.smear import draw_smear

WIDTH, HEIGHT = 900, 660
DRAWN = draw_smear(11, WIDTH, HEIGHT, 5, 44.0).image
Y, X = np.mgrid[:HEIGHT, :WIDTH]
SHAPES: dict[str, npt.NDArray[np.bool_]] = {
    "band": HEIGHT * 4 // 5 < Y,
    "two bands": (WIDTH // 8 > X) | (HEIGHT * 4 // 5 < Y),
    "tile": (X > 300) & (X < 500) & (Y > 200) & (Y < 400),
    "surround": np.hypot(X - WIDTH / 2, Y - HEIGHT / 2) > 0.49 * HEIGHT,
    "stairs": (Y < 100) & (X < 500) | (Y < 200) & (X < 200),
}
COLOURS = {"black": (0, 0, 0), "grey": (128, 128, 128), "brown": (45, 25, 20), "white": (255, 255, 255)}


def with_blank(shape: str, colour: str, noise: float = 0.0) -> RGBImage:
    picture = DRAWN.copy()
    picture[SHAPES[shape]] = COLOURS[colour]
    if noise:
        noisy = picture + np.random.default_rng(0).normal(0, noise, picture.shape)
        picture = np.where(SHAPES[shape][..., None], np.clip(noisy, 0, 255), picture).astype(np.uint8)
    return picture


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rest_of_the_field_comes_out_as_without_it(shape: str, colour: str) -> None:
    picture, part = with_blank(shape, colour), SHAPES[shape]
    measured = estimate_standardization(picture)
    assert measured.blank is not None
    assert measured.blank.share == pytest.approx(part.mean(), abs=0.06)
    after, whole = measured.apply(picture), estimate_standardization(DRAWN).apply(DRAWN)
    assert (after[part] == 240).mean() > 0.98
    beside = cv2.dilate(part.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
    assert np.abs(after[~beside].astype(int) - whole[~beside]).mean() < 6


@pytest.mark.parametrize("colour", ["black", "grey", "brown"])
def test_noise_of_a_camera_does_not_hide_it(colour: str) -> None:
    blank = estimate_standardization(with_blank("surround", colour, noise=2.0)).blank
    assert blank is not None and blank.share == pytest.approx(SHAPES["surround"].mean(), abs=0.06)


@pytest.mark.parametrize("seed", range(6))
def test_a_field_that_is_smear_throughout_has_none(seed: int) -> None:
    picture = draw_smear(seed, 640, 480, 5, 44.0).image
    assert estimate_standardization(picture).blank is None
    assert estimate_standardization(picture).notes == ()


def test_cells_on_a_flat_background_are_smear() -> None:
    picture = np.full((480, 640, 3), 255, np.uint8)
    for x, y in ((100, 100), (300, 250), (520, 330)):
        cv2.circle(picture, (x, y), 45, (230, 160, 170), -1)
    assert estimate_standardization(picture).blank is None
    close_up = np.full((240, 240, 3), 255, np.uint8)
    cv2.circle(close_up, (120, 120), 70, (120, 70, 140), -1)
    assert estimate_standardization(close_up).blank is None


def test_large_cells_at_the_border_are_smear() -> None:
    picture = DRAWN[200:360, 200:360]
    assert find_blank(scale_image(picture, 128 / 160)) is None
    assert estimate_standardization(scale_image(picture, 5.0)).blank is None


@pytest.mark.parametrize("shape", ["band", "surround"])
def test_nothing_is_found_there_and_as_much_elsewhere(shape: str) -> None:
    pipeline = Pipeline(classifier=None, device="cpu")

    def inside(picture: RGBImage) -> tuple[Cells, int]:
        cells = pipeline.run(Smear.from_array(picture)).cells
        x, y = cells.centres.astype(int).T
        outside = SHAPES[shape][np.clip(y, 0, HEIGHT - 1), np.clip(x, 0, WIDTH - 1)]
        return cells[~outside], int(outside.sum())

    expected, _ = inside(DRAWN)
    for colour in ("black", "white"):
        cells, on_it = inside(with_blank(shape, colour))
        assert on_it == 0
        assert len(cells) == pytest.approx(len(expected), rel=0.12)


def test_a_result_says_how_much_is_blank() -> None:
    smear = Smear.from_array(with_blank("band", "black"))
    smear = Smear(smear.image, None, "", (), estimate_standardization(smear.image))
    result = SmearResult(smear, Cells.empty(), Path("a"))
    (note,) = result.notes
    assert note.startswith(("20%", "21%", "22%")) and "no smear" in note
