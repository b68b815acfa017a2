"""The detector on a drawn smear whose truth is known, at any size, and on real fields where there are any."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from leukokit import weights
from leukokit.cells import Cells
from leukokit.detectors.yolo.detector import YoloDetector, YoloParams
from leukokit.detectors.yolo.network import YoloModel
from leukokit.errors import ConfigError, WeightsError
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.images.standardize import estimate_standardization
from leukokit.smear import Smear, read_image
from leukokit.synthetic.smear import draw_smear
from leukokit.taxonomy import ERYTHROCYTE, KINDS, LEUKOCYTE

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "smear.png"
REAL = ROOT.parent / "shared" / "data"


def prepared(image: RGBImage) -> Smear:
    smear = Smear.from_array(image)
    return replace(smear, standardization=estimate_standardization(image))


def overlaps(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    shared = np.prod(np.clip(np.minimum(first[:, None, 2:], second[None, :, 2:]) - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared))


def of_kind(cells: Cells, kind: int) -> Cells:
    return cells[cells.kinds == kind]


@pytest.fixture(scope="module")
def model() -> YoloModel:
    return YoloDetector().model


def detector(model: YoloModel, **params: object) -> YoloDetector:
    """A detector that shares the network, which takes longest to load."""
    made = YoloDetector(YoloParams.model_validate(params))
    made.__dict__["model"] = model
    return made


@pytest.fixture(scope="module")
def example() -> RGBImage:
    return read_image(EXAMPLE)


@pytest.fixture(scope="module")
def truth() -> dict[int, npt.NDArray[np.float32]]:
    cells = json.loads(EXAMPLE.with_suffix(".json").read_text())["cells"]
    return {
        number: np.array([cell["box"] for cell in cells if cell["kind"] == kind], np.float32)
        for number, kind in enumerate(KINDS)
    }


@pytest.fixture(scope="module")
def answer(model: YoloModel, example: RGBImage) -> Cells:
    return detector(model).detect([prepared(example)])[0]


def test_leukocytes_of_the_example_are_found(
    answer: Cells, truth: dict[int, npt.NDArray[np.float32]]
) -> None:
    found = overlaps(of_kind(answer, LEUKOCYTE).boxes, truth[LEUKOCYTE]) >= 0.5
    assert found.any(axis=0).mean() >= 0.9
    assert (~found.any(axis=1)).sum() <= 1


def test_erythrocytes_of_the_example_are_found_and_measured(
    answer: Cells, truth: dict[int, npt.NDArray[np.float32]]
) -> None:
    found = overlaps(of_kind(answer, ERYTHROCYTE).boxes, truth[ERYTHROCYTE]) >= 0.5
    assert found.any(axis=0).mean() >= 0.9
    true_diameter = json.loads(EXAMPLE.with_suffix(".json").read_text())["erythrocyte_diameter_px"]
    assert answer.erythrocyte_diameter_px == pytest.approx(true_diameter, rel=0.1)


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_size_of_the_picture_does_not_matter(
    model: YoloModel, example: RGBImage, answer: Cells, factor: float
) -> None:
    (other,) = detector(model).detect([prepared(scale_image(example, factor))])
    assert other.counts["leukocyte"] == answer.counts["leukocyte"]
    assert other.erythrocyte_diameter_px is not None and answer.erythrocyte_diameter_px is not None
    assert other.erythrocyte_diameter_px == pytest.approx(answer.erythrocyte_diameter_px * factor, rel=0.12)


def test_boxes_lie_in_the_image_and_are_told_once(answer: Cells, example: RGBImage) -> None:
    height, width = example.shape[:2]
    assert (answer.boxes >= 0).all() and (answer.boxes <= [width, height, width, height]).all()
    for kind in range(len(KINDS)):
        boxes = of_kind(answer, kind).boxes
        assert (overlaps(boxes, boxes)[~np.eye(len(boxes), dtype=bool)] <= 0.6 + 1e-4).all()


def test_same_image_gives_the_same_answer(model: YoloModel, example: RGBImage, answer: Cells) -> None:
    (again,) = detector(model).detect([prepared(example)])
    assert np.array_equal(again.boxes, answer.boxes)
    assert np.array_equal(again.kinds, answer.kinds)
    assert np.array_equal(again.scores, answer.scores)


def test_batch_of_different_sizes_equals_one_by_one(model: YoloModel, example: RGBImage) -> None:
    images = [
        draw_smear(1, 400, 300, 2, 40.0).image,
        np.full((200, 333, 3), 255, np.uint8),
        draw_smear(2, 400, 300, 2, 40.0).image,
        scale_image(example, 0.6),
        draw_smear(4, 420, 640, 2, 90.0).image,
    ]
    smears = [prepared(image) for image in images]
    together = detector(model, batch=2).detect(smears)
    assert len(together) == len(smears)
    for smear, cells in zip(smears, together, strict=True):
        (alone,) = detector(model, batch=2).detect([smear])
        assert cells.counts == alone.counts
        for kind in range(len(KINDS)):
            first, second = of_kind(cells, kind).boxes, of_kind(alone, kind).boxes
            if len(first):
                apart = np.abs(first[:, None] - second[None]).max(axis=2).min(axis=1)
                assert apart.max() <= 1.0
    assert len(together[0]) > 10 and len(together[1]) == 0


def test_fields_of_unlike_sizes_fill_the_batches(model: YoloModel) -> None:
    asked: list[tuple[int, ...]] = []

    def network(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        asked.append(pictures.shape)
        return model.network(pictures)

    sizes = [(320, 256), (256, 320)] * 3
    smears = [prepared(draw_smear(number, *size, 1, 44.0).image) for number, size in enumerate(sizes)]
    told = detector(replace(model, network=network), batch=3, cell_diameter_px=44)
    found = told.detect(smears)
    assert sorted(asked) == [(3, 256, 320, 3), (3, 320, 256, 3)]
    alone = [detector(model, cell_diameter_px=44).detect([smear])[0] for smear in smears]
    for cells, expected in zip(found, alone, strict=True):
        assert len(cells) == len(expected) > 0
        assert np.abs(cells.boxes - expected.boxes).max() < 0.1


def test_network_sees_most_fields_once(model: YoloModel, example: RGBImage) -> None:
    # As large and as full as fields of laboratories are; the example's are nearer to the best size already.
    drawn = [draw_smear(seed, 640, 480, 2, 60.0).image for seed in range(3)]
    seen: list[int] = []

    def network(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(len(pictures))
        return model.network(pictures)

    counted = replace(model, network=network)
    for image in drawn:
        assert len(of_kind(detector(counted).detect([prepared(image)])[0], ERYTHROCYTE)) > 20
    assert sum(seen) == len(drawn)


def test_no_smear_and_no_cell(model: YoloModel) -> None:
    assert detector(model).detect([]) == []
    (cells,) = detector(model).detect([prepared(np.full((300, 400, 3), 255, np.uint8))])
    assert len(cells) == 0
    assert cells.boxes.shape == (0, 4)
    assert cells.erythrocyte_diameter_px is None


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (40, 3)])
def test_smallest_images(model: YoloModel, size: tuple[int, int]) -> None:
    (cells,) = detector(model).detect([prepared(np.full((*size, 3), 200, np.uint8))])
    assert len(cells) <= 2


def test_lowest_score_is_the_weights_own_or_the_users(
    model: YoloModel, example: RGBImage, answer: Cells
) -> None:
    assert detector(model).confidence == model.confidence
    assert answer.scores.min() >= model.confidence
    strict, lenient = (
        detector(model, confidence=value).detect([prepared(example)])[0] for value in (0.8, 0.05)
    )
    assert 0 < len(strict) < len(answer) < len(lenient)
    assert strict.scores.min() >= 0.8
    (none,) = detector(model, confidence=1.0).detect([prepared(example)])
    assert len(none) == 0


def test_given_diameter_is_not_measured(model: YoloModel) -> None:
    drawn = draw_smear(1, 400, 300, 2, 40.0)
    (told,) = detector(model, cell_diameter_px=40).detect([prepared(drawn.image)])
    assert abs(told.counts["erythrocyte"] - drawn.kinds.count("erythrocyte")) <= 8
    # As if the cells were 6 times as large as they are: reduced until nothing is left to see.
    (wrong,) = detector(model, cell_diameter_px=240).detect([prepared(drawn.image)])
    assert wrong.counts["erythrocyte"] < told.counts["erythrocyte"] / 2


def test_provenance_names_the_weights(model: YoloModel) -> None:
    stored = json.loads(json.dumps(detector(model).provenance()))
    path = weights.find("smear-yolo11n")
    assert stored["weights"] == {"smear-yolo11n": weights.sha256_of(path)}
    assert stored["params"]["weights"] == "smear-yolo11n"
    assert stored["params"]["confidence"] == model.confidence


@pytest.mark.parametrize(
    "params", [{"confidence": 2}, {"tile_px": 1000}, {"tile_px": 32}, {"batch": 0}, {"colour": 1}]
)
def test_wrong_parameter_is_one_line_that_names_it(params: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        YoloDetector.parse(params)
    assert next(iter(params)) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    made = YoloDetector(YoloParams(weights=tmp_path / "none.safetensors"))
    with pytest.raises(WeightsError, match="smear-yolo11n"):
        made.detect([prepared(np.zeros((8, 8, 3), np.uint8))])


def real_fields(count: int) -> list[RGBImage]:
    """Validation fields of the laboratory raabin in TXL-PBC, one size."""
    index = REAL / "fields.csv"
    if not index.exists():
        pytest.skip(f"real smears are not here ({index.name} of ../shared/data)")
    with index.open(newline="", encoding="utf-8") as stream:
        files = sorted(
            row["file"]
            for row in csv.DictReader(stream)
            if row["dataset"] == "txl-pbc" and row["lab"] == "raabin" and row["split"] == "val"
        )
    images = [read_image(REAL / "txl-pbc" / file) for file in files[:count]]
    if len(images) < count or len({image.shape for image in images}) > 1:
        pytest.skip(f"fewer than {count} fields of one size in ../shared/data")
    return images


def close(count: int, expected: int) -> bool:
    return abs(count - expected) <= max(1, 0.01 * expected)


def test_large_field_counts_as_its_parts_and_as_one_look(model: YoloModel) -> None:
    """Cells cut where fields are pasted stay cut, so the fields one by one are the reference.

    All are looked at in one scale: the pasted fields' own scales differ, and with them the faint cells.
    """
    # Smaller mosaics are settled by the first look at the whole, without tiles.
    side, diameter = 5, 120
    images = real_fields(side * side)
    rows = [np.concatenate(images[row * side : (row + 1) * side], axis=1) for row in range(side)]
    mosaic = prepared(np.concatenate(rows))
    parts = detector(model, cell_diameter_px=diameter).detect([prepared(image) for image in images])
    tiled, one = (
        detector(model, cell_diameter_px=diameter, tile_px=px).detect([mosaic])[0] for px in (512, 2048)
    )
    for kind in ("leukocyte", "erythrocyte"):
        alone = sum(cells.counts[kind] for cells in parts)
        assert alone >= side * side - 2
        # Cells at the threshold go either way with the place of a tile's grid.
        assert close(tiled.counts[kind], alone), (kind, tiled.counts, alone)
        assert close(tiled.counts[kind], one.counts[kind]), (kind, tiled.counts, one.counts)
    for some, others in ((tiled, one), (one, tiled)):
        sure = some[some.scores >= 0.5]
        met = (overlaps(sure.boxes, others.boxes) >= 0.5).any(axis=1)
        assert met.mean() >= 0.99
    for number in range(len(KINDS)):
        boxes = of_kind(tiled, number).boxes
        assert (overlaps(boxes, boxes)[~np.eye(len(boxes), dtype=bool)] <= 0.6 + 1e-4).all()


def test_tiles_of_a_drawn_field_count_each_cell_once(model: YoloModel, example: RGBImage) -> None:
    # A diameter that asks for another look, at 1.6 times the size of the first one.
    smear = prepared(example)
    tiled, one = (detector(model, tile_px=px, cell_diameter_px=55).detect([smear])[0] for px in (512, 2048))
    assert tiled.counts["leukocyte"] == one.counts["leukocyte"] >= 9
    assert close(tiled.counts["erythrocyte"], one.counts["erythrocyte"])
    assert len(tiled) != 0 and not np.array_equal(tiled.boxes, one.boxes)


def corner_of_an_empty_field(part: RGBImage) -> RGBImage:
    background = np.percentile(part.reshape(-1, 3), 90, axis=0)
    noise = np.random.default_rng(0).normal(0, 2, (1200, 1600, 3))
    field = np.clip(background + noise, 0, 255).astype(np.uint8)
    field[60 : 60 + part.shape[0], 80 : 80 + part.shape[1]] = part
    return field


def test_cells_in_one_corner_of_an_empty_field_are_the_ruler(model: YoloModel) -> None:
    """The middle of the field, where the ruler is sought first, holds none of them."""
    part = draw_smear(7, 160, 120, 0, 24.0).image
    smear = prepared(corner_of_an_empty_field(part))
    (cells,) = detector(model).detect([smear])
    assert cells.erythrocyte_diameter_px == pytest.approx(24.0, rel=0.25)
    assert cells.counts["erythrocyte"] >= 8 and cells.notes == ()


def test_a_ruler_that_could_not_be_measured_is_a_note(model: YoloModel) -> None:
    empty = prepared(np.full((300, 400, 3), 230, np.uint8))
    (cells,) = detector(model).detect([empty])
    assert len(cells) == 0 and "no diameter was measured" in cells.notes[0]
    (cells,) = detector(model, cell_diameter_px=40).detect([empty])
    assert cells.notes == ()
