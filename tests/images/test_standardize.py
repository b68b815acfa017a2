"""Light and stain: uneven light is undone, cells are not mistaken for it, and no picture is too odd."""

from __future__ import annotations

import json

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.images.pixels import RGBImage, scale_image
from leukokit.images.standardize import (
    ENVELOPE,
    REDUCED_SIDE,
    WHITE,
    _basis,
    estimate_standardization,
    standardize,
)
from leukokit.synthetic.smear import SyntheticSmear, draw_smear

WIDTH, HEIGHT = 400, 300


@pytest.fixture(scope="module")
def drawn() -> SyntheticSmear:
    return draw_smear(3, WIDTH, HEIGHT, leukocytes=2, erythrocyte_diameter_px=35.0)


def quadratic(strength: float) -> npt.NDArray[np.float64]:
    """Relative light (H, W, 1), 1 at its brightest; log-quadratic, off its middle."""
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    log_light = -strength * ((x - 0.3) ** 2 + 0.6 * (y + 0.2) ** 2 + 0.3 * x * y)
    light: npt.NDArray[np.float64] = np.exp(log_light - log_light.max())[..., None]
    return light


def dimmed(image: RGBImage, light: npt.NDArray[np.float64]) -> RGBImage:
    return np.rint(image * light).astype(np.uint8)


def background(drawn: SyntheticSmear) -> npt.NDArray[np.bool_]:
    mask = np.ones((HEIGHT, WIDTH), bool)
    for x1, y1, x2, y2 in drawn.boxes.astype(int):
        mask[max(y1 - 3, 0) : y2 + 3, max(x1 - 3, 0) : x2 + 3] = False
    assert mask.mean() > 0.1
    return mask


@pytest.mark.parametrize("strength", [0.15, 0.4])
def test_unevenly_lit_field_comes_back_as_the_evenly_lit_one(drawn: SyntheticSmear, strength: float) -> None:
    uneven = dimmed(drawn.image, quadratic(strength))
    before = np.abs(uneven.astype(int) - drawn.image).mean()
    apart = np.abs(standardize(uneven).astype(int) - standardize(drawn.image))
    assert apart.mean() < min(6.0, before / 2)
    assert np.percentile(apart, 99) < 25


def test_background_becomes_even_and_white(drawn: SyntheticSmear) -> None:
    mask = background(drawn)
    uneven = dimmed(drawn.image, quadratic(0.4))
    corners = [np.s_[:150, :200], np.s_[:150, 200:], np.s_[150:, :200], np.s_[150:, 200:]]

    def levels(image: RGBImage) -> npt.NDArray[np.float64]:
        return np.array([np.median(image[part][mask[part]], axis=0) for part in corners])

    assert np.ptp(levels(uneven), axis=0).max() > 40
    after = levels(standardize(uneven))
    assert np.ptp(after, axis=0).max() < 12
    assert np.abs(after - WHITE).max() < 15


def test_unevenness_measures_the_light(drawn: SyntheticSmear) -> None:
    light = quadratic(0.4)
    even, uneven = estimate_standardization(drawn.image), estimate_standardization(dimmed(drawn.image, light))
    assert 1.0 <= even.unevenness < 1.5
    assert uneven.unevenness == pytest.approx(even.unevenness / light.min(), rel=0.3)
    assert estimate_standardization(np.full((50, 80, 3), 180, np.uint8)).unevenness == pytest.approx(
        1.0, abs=0.02
    )


@settings(deadline=None, max_examples=30)
@given(
    left=st.integers(0, WIDTH - 120),
    top=st.integers(0, HEIGHT - 120),
    width=st.integers(120, WIDTH),
    height=st.integers(120, HEIGHT),
)
def test_crop_with_its_extent_is_the_crop_of_the_whole(
    drawn: SyntheticSmear, left: int, top: int, width: int, height: int
) -> None:
    field = dimmed(drawn.image, quadratic(0.3))
    measured = estimate_standardization(field)
    right, bottom = min(WIDTH, left + width), min(HEIGHT, top + height)
    extent = (left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT)
    crop = measured.apply(field[top:bottom, left:right], extent)
    whole = measured.apply(field)[top:bottom, left:right]
    assert crop.shape == whole.shape
    assert np.abs(crop.astype(int) - whole).max() <= 2


def test_work_in_strips_does_not_show(drawn: SyntheticSmear, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = estimate_standardization(drawn.image)
    whole = measured.apply(drawn.image)
    monkeypatch.setattr("leukokit.images.standardize.STRIP_PIXELS", 7 * WIDTH)
    assert np.array_equal(measured.apply(drawn.image), whole)


def test_stain_is_brought_to_one_density(drawn: SyntheticSmear) -> None:
    def pallor(image: RGBImage) -> npt.NDArray[np.float64]:
        x1, y1, x2, y2 = (int(side) for side in drawn.boxes[drawn.kinds.index("erythrocyte")])
        return np.asarray(np.median(image[y1:y2, x1:x2], axis=(0, 1)), np.float64)

    lamp = np.percentile(drawn.image, 98, axis=(0, 1))
    density = -np.log(np.clip(drawn.image, 1, 255) / lamp)
    pale, strong = (
        np.clip(lamp * np.exp(-density * factor), 0, 255).astype(np.uint8) for factor in (0.7, 1.4)
    )
    before = np.abs(pallor(pale) - pallor(strong)).max()
    after = np.abs(pallor(standardize(pale)) - pallor(standardize(strong))).max()
    assert before > 20
    assert after < before / 2


def disc(share: float) -> tuple[RGBImage, int]:
    """A close-up: one dark disc of that share of the picture in its middle; and the disc's radius."""
    image = np.full((240, 240, 3), (236, 226, 214), np.uint8)
    radius = round(240 * np.sqrt(share / np.pi))
    cv2.circle(image, (120, 120), radius, (120, 70, 140), -1)
    noisy = image + np.random.default_rng(0).normal(0, 2, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), radius


@pytest.mark.parametrize(
    "share",
    [
        0.15,
        pytest.param(
            0.5,
            marks=pytest.mark.xfail(
                strict=True, reason="the surface's fourth power follows a lone dark disc in the middle"
            ),
        ),
    ],
)
def test_large_cell_in_the_middle_is_not_taken_for_shade(share: float) -> None:
    image, radius = disc(share)
    after = standardize(image).astype(int)
    rim_at = 126 - radius
    middle, rim = after[110:130, 110:130].mean(axis=(0, 1)), after[115:125, rim_at : rim_at + 8].mean((0, 1))
    assert np.abs(middle - rim).max() < 12
    assert after[:15, :15].mean() - middle.mean() > 30


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (64, 64), (700, 90)])
@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_uniform_picture_stays_uniform(size: tuple[int, int], grey: int) -> None:
    image = np.full((*size, 3), grey, np.uint8)
    after = standardize(image)
    assert after.shape == image.shape
    assert after.dtype == np.uint8
    assert np.ptp(after.astype(int)) <= 5
    assert np.abs(after - WHITE).max() <= 6


def test_noise_does_not_break_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    measured = estimate_standardization(image)
    assert np.isfinite(measured.surface).all()
    assert np.isfinite(measured.gains).all()
    assert standardize(image).std() > 10


def test_what_is_recorded_is_json(drawn: SyntheticSmear) -> None:
    recorded = json.loads(json.dumps(estimate_standardization(drawn.image).to_json()))
    assert recorded["unevenness"] >= 1
    assert len(recorded["stain_gains"]) == 3
    assert np.array(recorded["light_surface"]).shape == (7, 3)


@pytest.mark.parametrize("shape", ["corners", "disc"])
def test_black_around_the_field_changes_nothing_within(drawn: SyntheticSmear, shape: str) -> None:
    picture, (height, width) = drawn.image.copy(), drawn.image.shape[:2]
    y, x = np.mgrid[:height, :width]
    if shape == "corners":
        black = (x + y < 0.25 * width) | (x + y > 0.8 * width + height - 0.25 * width)
    else:
        black = np.hypot(x - width / 2, y - height / 2) > 0.55 * height
    picture[black] = 3
    found = estimate_standardization(picture)
    assert found.blank is not None and found.to_json()["blank_share"] == pytest.approx(black.mean(), abs=0.04)
    inside, whole = found.apply(picture), estimate_standardization(drawn.image).apply(drawn.image)
    # Not the slivers between disc and border, too small to be told from a nucleus.
    assert (inside[black] == 240).mean() > 0.99
    assert np.abs(inside[~black].astype(int) - whole[~black]).mean() < 6
    # A part is changed as it is in the whole.
    left, top = width // 4 // 8 * 8, 0
    part = found.apply(picture[:, left:], (left / width, top, 1.0, 1.0))
    assert np.abs(part.astype(int) - inside[:, left:]).mean() < 1


def test_dark_nuclei_and_dark_fields_are_smear(drawn: SyntheticSmear) -> None:
    picture = drawn.image.copy()
    picture[100:140, 100:140] = 0
    assert estimate_standardization(picture).blank is None
    assert estimate_standardization(np.full((60, 80, 3), 10, np.uint8)).blank is None


def test_the_light_is_the_weighted_fit_in_double_precision(drawn: SyntheticSmear) -> None:
    image = np.clip(drawn.image * quadratic(0.4), 0, 255).astype(np.uint8)
    small = scale_image(image, REDUCED_SIDE / WIDTH)
    log_intensity = np.log(np.maximum(small.reshape(-1, 3).astype(float), 1.0))
    basis = _basis(*small.shape[:2]).astype(float)
    ridge = 2e-3 * len(basis) * np.diag([0.0, 1, 1, 1, 1, 1, 1])
    surface = estimate_standardization(image).surface
    for channel in range(3):
        target = log_intensity[:, channel]
        fitted = np.array([np.quantile(target, 0.9), 0, 0, 0, 0, 0, 0])
        for _ in range(12):
            weight = np.where(target > basis @ fitted, ENVELOPE, 1 - ENVELOPE)
            weighted = basis * weight[:, None]
            fitted = np.linalg.solve(weighted.T @ basis + ridge * weight.mean(), weighted.T @ target)
        assert basis @ surface[:, channel] == pytest.approx(basis @ fitted, abs=1e-3)
