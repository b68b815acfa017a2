from itertools import pairwise

import cv2
import numpy as np
import pytest
from leukokit.evaluation.detection import match
from leukokit.smear import Smear
from leukokit.synthetic.smear import draw_smear
from leukokit.taxonomy import LEUKOCYTE

from leukokit_classic.blob import BlobDetector
from leukokit_classic.cmyk_moments import CmykMomentsDetector, extent, joined, parts_of
from leukokit_classic.field import Nucleus, cmyk, leukocytes, nucleus_stain, reduced

DETECTORS = (BlobDetector, CmykMomentsDetector)


@pytest.mark.parametrize("plugin", DETECTORS)
def test_drawn_leukocytes_are_found(plugin: type) -> None:
    met = there = found = 0
    for seed in range(4):
        drawn = draw_smear(seed, 640, 480, leukocytes=4, erythrocyte_diameter_px=50)
        truth = drawn.boxes[[kind == "leukocyte" for kind in drawn.kinds]]
        (cells,) = plugin().detect([Smear.from_array(drawn.image)])
        assert (cells.kinds == LEUKOCYTE).all()
        met += int(match(cells.boxes, cells.scores, truth)[1].sum())
        there, found = there + len(truth), found + len(cells)
    assert met / there >= 0.6
    assert met / found >= 0.6


@pytest.mark.parametrize("plugin", DETECTORS)
def test_boxes_follow_the_size_of_the_picture(plugin: type) -> None:
    drawn = draw_smear(1, 640, 480, leukocytes=4, erythrocyte_diameter_px=50).image
    large = cv2.resize(drawn, (1920, 1440), interpolation=cv2.INTER_CUBIC)
    small, big = plugin().detect([Smear.from_array(drawn), Smear.from_array(large)])
    assert len(small) == len(big) > 0
    assert np.allclose(big.boxes, 3 * small.boxes, atol=24)


@pytest.mark.parametrize("plugin", DETECTORS)
def test_a_field_without_leukocytes_is_empty(plugin: type) -> None:
    drawn = draw_smear(3, 640, 480, leukocytes=0, erythrocyte_diameter_px=50)
    (cells,) = plugin().detect([Smear.from_array(drawn.image)])
    assert len(cells) <= 1  # a platelet is stained as a nucleus is


def test_cmyk_of_known_colours() -> None:
    colours = np.array([[[240, 240, 240], [0, 240, 240], [240, 0, 120], [0, 0, 0]]], np.uint8)
    table = np.stack(cmyk(colours), axis=-1)[0]
    expected = [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0.5, 0], [0, 0, 0, 1]]
    assert np.allclose(table, expected, atol=1e-3)


def test_nuclei_are_stained_and_erythrocytes_are_not() -> None:
    violet, salmon = [110, 60, 145], [205, 145, 167]
    stain = nucleus_stain(np.array([[violet, salmon]], np.uint8))[0]
    assert stain[0] > 0.3 > 0.2 > stain[1]


def test_moments_of_a_rectangle_give_its_middle_and_its_sides() -> None:
    stain = np.zeros((200, 300), np.float32)
    stain[60:100, 40:120] = 0.5
    (part,) = parts_of(stain, 0.2)
    x1, y1, x2, y2 = extent(part, 1.0)
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((80, 80))
    # Two standard deviations of an even spread are the half side times 2 / sqrt(3).
    assert (x2 - x1, y2 - y1) == pytest.approx((80 * 2 / 3**0.5, 40 * 2 / 3**0.5), rel=1e-2)
    assert part[5] / part[0] == pytest.approx(0.5)


def test_lobes_are_joined_and_distant_nuclei_are_not() -> None:
    stain = np.zeros((200, 400), np.float32)
    for left in (40, 72, 104, 300):
        stain[80:110, left : left + 28] = 0.5
    parts = joined(parts_of(stain, 0.2), 1.1)
    assert sorted(int(part[0]) for part in parts) == [840, 3 * 840]


def test_debris_is_left_out_and_boxes_stay_inside() -> None:
    smear = Smear.from_array(np.full((100, 200, 3), 240, np.uint8))
    found = [
        Nucleus((-5, -5, 30, 30), 100, 0.3),
        Nucleus((50, 20, 60, 30), 20, 0.3),
        Nucleus((60, 20, 99, 49), 400, 2.0),
    ]
    cells = leukocytes(found, (50, 100), smear)
    assert cells.boxes.tolist() == [[120, 40, 198, 98], [0, 0, 60, 60]]
    assert cells.scores.tolist() == pytest.approx([1.0, 0.5])


def test_large_fields_are_reduced() -> None:
    assert reduced(Smear.from_array(np.full((700, 1400, 3), 240, np.uint8))).shape == (256, 512, 3)


@pytest.mark.parametrize("plugin", DETECTORS)
def test_a_wider_box_is_asked_for_with_grow(plugin: type) -> None:
    smear = Smear.from_array(draw_smear(1, 640, 480, leukocytes=1, erythrocyte_diameter_px=50).image)
    areas = []
    for grow in (1.0, 1.3, 1.6):
        (cells,) = plugin(plugin.parse({"grow": grow})).detect([smear])
        areas.append(float(np.prod(cells.boxes[0, 2:] - cells.boxes[0, :2])))
    assert all(less < more for less, more in pairwise(areas))
