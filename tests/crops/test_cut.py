"""Crops of single cells, and the stain of their nuclei."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, Cells
from leukokit.crops.appearance import APPEARANCE, appearance
from leukokit.crops.cut import REACH, crop_sides, cut_crop, cut_crops, optical_density
from leukokit.crops.stain import NUCLEUS_REFERENCE, mix_stain, nucleus_map
from leukokit.images.standardize import ANCHOR_DENSITY, WHITE
from leukokit.smear import Smear
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE


def painted(density: np.ndarray) -> np.ndarray:
    return np.asarray(np.round(WHITE * np.exp(-density)), dtype=np.uint8)


def test_a_crop_shows_the_square_around_its_middle() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    image[10:20, 30:40] = (10, 20, 30)
    crop = cut_crop(Smear.from_array(image), (35, 15), 10, 10)
    assert (crop == (10, 20, 30)).all()
    wide = cut_crop(Smear.from_array(image), (35, 15), 20, 20)
    assert (wide[5:15, 5:15] == (10, 20, 30)).all() and (wide[:4] == 200).all()


def test_outside_the_image_is_white() -> None:
    crop = cut_crop(Smear.from_array(np.zeros((10, 10, 3), np.uint8)), (0, 0), 10, 10)
    assert (crop[5:, 5:] == 0).all() and (crop[:5] == WHITE).all() and (crop[:, :5] == WHITE).all()


@settings(deadline=None, max_examples=60)
@given(st.tuples(st.floats(-50, 90), st.floats(-50, 90)), st.floats(0, 200), st.integers(1, 40))
def test_any_square_has_the_size_asked_for(centre: tuple[float, float], side: float, px: int) -> None:
    smear = Smear.from_array(np.full((30, 40, 3), 99, np.uint8))
    crop = cut_crop(smear, centre, side, px)
    assert crop.shape == (px, px, 3) and set(np.unique(crop)) <= {99, int(WHITE)}


def test_no_box_no_crop() -> None:
    smear = Smear.from_array(np.zeros((10, 10, 3), np.uint8))
    assert cut_crops(smear, np.empty((0, 4), np.float32), np.empty(0, np.float32), 8).shape == (0, 8, 8, 3)


def test_optical_density_of_white_is_nothing_and_halves_add_ln_two() -> None:
    picture = np.array([[[240, 120, 60]]], np.uint8)
    np.testing.assert_allclose(optical_density(picture)[0, 0], [0, np.log(2), np.log(4)], atol=1e-6)


def test_nuclei_of_any_hue_come_to_the_reference_and_erythrocytes_stay() -> None:
    for hue in ([0.5, 1.6, 0.1], [0.4, 1.4, 0.6], [0.9, 1.1, 0.5]):
        crop = np.full((80, 80, 3), int(WHITE), np.uint8)
        crop[25:55, 25:55] = painted(np.array(hue))
        crop[:10] = painted(ANCHOR_DENSITY)
        mixed = mix_stain(crop, nucleus_map(crop, 40, ANCHOR_DENSITY))
        nucleus = optical_density(mixed[40:41, 40:41])[0, 0]
        cosine = nucleus @ NUCLEUS_REFERENCE / np.linalg.norm(nucleus) / np.linalg.norm(NUCLEUS_REFERENCE)
        before = np.array(hue) @ NUCLEUS_REFERENCE / np.linalg.norm(hue) / np.linalg.norm(NUCLEUS_REFERENCE)
        assert cosine > max(before - 1e-3, 0.985)
        np.testing.assert_allclose(optical_density(mixed[:1, :1])[0, 0], ANCHOR_DENSITY, atol=0.09)


def test_appearance_tells_nucleus_from_cytoplasm() -> None:
    image = np.full((200, 200, 3), int(WHITE), np.uint8)
    image[40:80, 40:80] = painted(np.array([0.1, 0.3, 0.2]))
    image[40:80, 40:60] = painted(np.array([1.0, 1.2, 0.5]))
    image[120:140, 120:140] = painted(ANCHOR_DENSITY)
    cells = Cells(
        np.array([[40, 40, 80, 80], [120, 120, 140, 140]]), np.array([0, 1]), np.ones(2, np.float32)
    )
    looks = dict(zip(APPEARANCE, appearance(Smear.from_array(image), cells).T, strict=True))
    assert abs(looks["nucleus_share"][0] - 0.5) < 0.06 and looks["nucleus_share"][1] == 0
    assert abs(looks["nucleus_density_r"][0] - 1.0) < 0.05
    assert abs(looks["cytoplasm_density_g"][0] - 0.3) < 0.05
    np.testing.assert_allclose([looks[f"density_{c}"][1] for c in "rgb"], ANCHOR_DENSITY, atol=0.03)


def test_appearance_of_no_cell_and_of_cells_beyond_the_border() -> None:
    smear = Smear.from_array(np.full((20, 20, 3), 128, np.uint8))
    assert appearance(smear, Cells.empty()).shape == (0, len(APPEARANCE))
    beyond = Cells(
        np.array([[-30.0, -30, -10, -10], [15, 15, 60, 60], [3, 3, 3, 3]]),
        np.zeros(3, int),
        np.ones(3, np.float32),
    )
    assert np.isfinite(appearance(smear, beyond)).all()


@given(
    st.lists(st.tuples(st.floats(20, 60), st.floats(20, 60)), min_size=3, max_size=12),
    st.floats(15, 40),
    st.floats(0.6, 2.4),
)
def test_crops_in_erythrocytes_show_sizes_as_they_are(
    sizes: list[tuple[float, float]], diameter: float, cover: float
) -> None:
    leukocytes = [[0, 0, width, height] for width, height in sizes]
    boxes = np.array([*leukocytes, *[[0, 0, diameter, diameter]] * 5], np.float32)
    kinds = np.array([LEUKOCYTE] * len(sizes) + [ERYTHROCYTE] * 5)
    cells = Cells(boxes, kinds, np.ones(len(boxes), np.float32))
    nodes = np.arange(len(sizes))
    longest = boxes[nodes, 2:].max(axis=1)
    assert crop_sides(cells, nodes, cover, "box") == pytest.approx(cover * longest)
    sides = crop_sides(cells, nodes, cover, "erythrocyte")
    # A cell is whole in its crop; but for that, all crops of a field have one side.
    assert (sides >= longest).all() and (sides <= REACH * longest * 1.0001).all()
    usual = cover * LEUKOCYTE_TO_ERYTHROCYTE * diameter
    free = (longest < usual) & (usual < REACH * longest)
    assert sides[free] == pytest.approx(usual, rel=1e-4)
