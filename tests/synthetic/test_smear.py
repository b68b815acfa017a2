from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leukokit.errors import DataError
from leukokit.synthetic.cells import DrawnCell, draw_erythrocyte, draw_platelet, erythrocyte_outline
from leukokit.synthetic.leukocytes import DIAMETERS, draw_leukocyte
from leukokit.synthetic.smear import SyntheticSmear, draw_smear, save_smear
from leukokit.taxonomy import KINDS, LEUKOCYTE_CLASSES

SMALL: dict[str, Any] = {"width": 400, "height": 300, "leukocytes": 6, "erythrocyte_diameter_px": 26.0}


@pytest.fixture(scope="module")
def small() -> SyntheticSmear:
    return draw_smear(3, **SMALL)


@pytest.fixture(scope="module")
def full() -> SyntheticSmear:
    return draw_smear()


def sides(smear: SyntheticSmear) -> npt.NDArray[np.float32]:
    return np.sqrt(np.prod(smear.boxes[:, 2:] - smear.boxes[:, :2], axis=1))


def of_kind(smear: SyntheticSmear, kind: str) -> npt.NDArray[np.bool_]:
    return np.array([found == kind for found in smear.kinds])


def test_a_seed_draws_the_same_field_again(small: SyntheticSmear) -> None:
    again = draw_smear(3, **SMALL)
    assert again.image.tobytes() == small.image.tobytes()
    assert again.boxes.tobytes() == small.boxes.tobytes()
    assert (again.kinds, again.labels) == (small.kinds, small.labels)


def test_another_seed_draws_another_field(small: SyntheticSmear) -> None:
    other = draw_smear(4, **SMALL)
    assert other.image.shape == small.image.shape
    assert np.abs(other.image.astype(int) - small.image).mean() > 5


def test_types_and_counts_of_the_default_field(full: SyntheticSmear) -> None:
    assert full.image.shape == (1200, 1600, 3) and full.image.dtype == np.uint8
    assert full.boxes.dtype == np.float32 and full.boxes.shape == (len(full.kinds), 4)
    assert len(full.labels) == len(full.kinds)
    assert set(full.kinds) == set(KINDS)
    assert full.kinds.count("leukocyte") == 10
    assert 150 <= full.kinds.count("erythrocyte") <= 250
    assert 10 <= full.kinds.count("platelet") <= 20


def test_all_five_classes_and_labels_on_leukocytes_only(small: SyntheticSmear) -> None:
    labelled = {(kind, label) for kind, label in zip(small.kinds, small.labels, strict=True)}
    assert {label for kind, label in labelled if kind == "leukocyte"} == set(LEUKOCYTE_CLASSES)
    assert {label for kind, label in labelled if kind != "leukocyte"} == {""}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    width=st.integers(120, 300),
    height=st.integers(120, 300),
    leukocytes=st.integers(0, 3),
    diameter=st.floats(10, 18),
)
def test_boxes_lie_inside_any_field(
    seed: int, width: int, height: int, leukocytes: int, diameter: float
) -> None:
    smear = draw_smear(seed, width, height, leukocytes, diameter)
    assert smear.image.shape == (height, width, 3)
    assert (smear.boxes >= 0).all()
    assert (smear.boxes[:, [0, 2]] <= width).all() and (smear.boxes[:, [1, 3]] <= height).all()
    assert (smear.boxes[:, 2:] > smear.boxes[:, :2]).all()
    assert smear.kinds.count("leukocyte") == leukocytes


def test_leukocytes_do_not_overlap(full: SyntheticSmear) -> None:
    boxes = full.boxes[of_kind(full, "leukocyte")]
    centres, radii = (boxes[:, :2] + boxes[:, 2:]) / 2, sides(full)[of_kind(full, "leukocyte")] / 2
    away = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    apart = away - radii[:, None] - radii[None]
    assert apart[~np.eye(len(boxes), dtype=bool)].min() > 0


def test_sizes_are_those_of_real_cells(full: SyntheticSmear) -> None:
    unit = full.erythrocyte_diameter_px
    ratios = sides(full) / unit
    inside = (full.boxes[:, 0] > 0) & (full.boxes[:, 1] > 0)
    inside &= (full.boxes[:, 2] < 1600) & (full.boxes[:, 3] < 1200)
    assert np.median(ratios[inside & of_kind(full, "erythrocyte")]) == pytest.approx(1.0, abs=0.04)
    platelets = ratios[of_kind(full, "platelet")]
    assert platelets.min() > 0.13 and platelets.max() < 0.28
    for ratio, label in zip(ratios, full.labels, strict=True):
        if label:
            low, high = DIAMETERS[label]
            assert low - 0.06 <= ratio <= high + 0.06, label


def inked_box(cell: DrawnCell) -> npt.NDArray[np.float64]:
    """Where the drawing is dense enough to be seen, whatever its mask says."""
    rows, columns = np.nonzero(cell.density[..., 1] > 0.08)
    rows, columns = rows + cell.top, columns + cell.left
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


@pytest.mark.parametrize("label", ["erythrocyte", "platelet", *LEUKOCYTE_CLASSES])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_boxes_are_tight_around_the_drawing(label: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre = (200.4, 180.7)
    if label == "erythrocyte":
        cell = draw_erythrocyte(rng, centre, erythrocyte_outline(rng, 70.0), 70.0)
    elif label == "platelet":
        cell = draw_platelet(rng, centre, 70.0)
    else:
        cell = draw_leukocyte(rng, label, centre, float(np.mean(DIAMETERS[label])) * 70.0, 70.0)
    box, visible = cell.box(400, 400)
    assert visible == 1.0
    assert np.abs(box - inked_box(cell)).max() <= 2.0


def test_a_cell_cut_by_the_border_is_clipped_and_its_visible_part_known() -> None:
    rng = np.random.default_rng(5)
    cell = draw_erythrocyte(rng, (0.0, 50.0), erythrocyte_outline(rng, 40.0), 40.0)
    box, visible = cell.box(100, 100)
    assert box[0] == 0 and 15 < box[2] < 26
    assert visible == pytest.approx(0.5, abs=0.08)
    far = draw_erythrocyte(rng, (-60.0, 50.0), erythrocyte_outline(rng, 40.0), 40.0)
    assert far.box(100, 100)[1] == 0.0


def test_density_adds_where_cells_overlap() -> None:
    rng = np.random.default_rng(6)
    cell = draw_erythrocyte(rng, (30.0, 30.0), erythrocyte_outline(rng, 30.0), 30.0)
    once, twice = np.zeros((60, 60, 3), np.float32), np.zeros((60, 60, 3), np.float32)
    cell.stamp(once)
    cell.stamp(twice)
    cell.stamp(twice)
    assert once.max() > 0.2
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_boxes_match_what_is_in_the_picture(small: SyntheticSmear) -> None:
    density = -np.log(np.maximum(small.image.astype(float), 1) / np.quantile(small.image, 0.98, axis=(0, 1)))
    covered = np.zeros(density.shape[:2], dtype=bool)
    for (x1, y1, x2, y2), kind in zip(small.boxes.astype(int), small.kinds, strict=True):
        covered[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = True
        inside = density[y1:y2, x1:x2].mean(axis=2)
        if kind == "leukocyte":
            # A nucleus takes up at least a tenth of the box, and nothing else on a smear is as dense.
            assert np.quantile(inside, 0.9) > 0.8
        else:
            assert inside.mean() > 0.12
    background = density[~covered]
    assert len(background) > 0.1 * covered.size
    assert np.quantile(background.mean(axis=1), 0.9) < 0.15


def test_an_empty_of_leukocytes_field_has_red_cells_only_and_platelets() -> None:
    smear = draw_smear(1, 200, 150, leukocytes=0, erythrocyte_diameter_px=20.0)
    assert set(smear.kinds) == {"erythrocyte", "platelet"}


def test_saved_truth_reads_back(small: SyntheticSmear, tmp_path: Path) -> None:
    picture = tmp_path / "Ausstrich ä.png"
    truth_path = save_smear(small, picture)
    assert truth_path == tmp_path / "Ausstrich ä.json"
    with Image.open(picture) as stored:
        np.testing.assert_array_equal(np.asarray(stored), small.image)
    truth = json.loads(truth_path.read_text(encoding="utf-8"))
    assert list(truth) == ["image", "width", "height", "seed", "erythrocyte_diameter_px", "cells"]
    assert truth["image"] == picture.name
    assert (truth["width"], truth["height"], truth["seed"]) == (400, 300, 3)
    assert truth["erythrocyte_diameter_px"] == 26.0
    assert [cell["kind"] for cell in truth["cells"]] == list(small.kinds)
    assert [cell["label"] for cell in truth["cells"]] == list(small.labels)
    np.testing.assert_array_equal(np.array([cell["box"] for cell in truth["cells"]], np.float32), small.boxes)
    assert sorted(path.name for path in tmp_path.iterdir()) == [truth_path.name, picture.name]


def test_a_place_that_cannot_be_written_is_one_line_and_leaves_nothing(
    small: SyntheticSmear, tmp_path: Path
) -> None:
    (tmp_path / "picture.png").mkdir()
    (tmp_path / "truth.json").mkdir()
    for name in ("absent/smear.png", "picture.png", "truth.png"):
        with pytest.raises(DataError, match="cannot write the drawn smear") as caught:
            save_smear(small, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.png", "truth.json"]


def test_a_failure_between_the_two_writes_leaves_neither(small: SyntheticSmear, tmp_path: Path) -> None:
    # A folder in the place of the picture's temporary file stops the second of the two writes.
    (tmp_path / "smear.png.part").mkdir()
    with pytest.raises(DataError, match="cannot write the drawn smear"):
        save_smear(small, tmp_path / "smear.png")
    assert [path.name for path in tmp_path.iterdir()] == ["smear.png.part"]


def test_only_png_is_written(small: SyntheticSmear, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.png"):
        save_smear(small, tmp_path / "smear.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 400, "height": 300, "leukocytes": 10}, "10 leukocytes do not fit in 400 x 300 px"),
        ({"width": 200, "height": 150, "leukocytes": 1}, "1 leukocytes do not fit"),
        ({"width": 100, "height": 90}, "diameter of 70 px does not suit 100 x 90 px"),
        ({"erythrocyte_diameter_px": 4.0}, "at least 10 px"),
        ({"erythrocyte_diameter_px": float("nan")}, "does not suit"),
        ({"leukocytes": -1}, "must not be negative"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_impossible_requests_say_why_in_one_line(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        draw_smear(**arguments)  # type: ignore[arg-type]  # the arguments' types differ by name
    assert "\n" not in str(caught.value)
