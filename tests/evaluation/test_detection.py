"""Average precision against the reference implementation; figures on fields whose truth is known."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from leukokit.cli.tables import detection_table
from leukokit.datasets.fields import AnnotatedField
from leukokit.errors import DataError
from leukokit.evaluation.detection import Matches, _kind_figures, _Tally, evaluate_detector
from leukokit.metrics.intervals import clopper_pearson
from leukokit.metrics.matching import average_precision, match
from leukokit.pipeline import Pipeline
from leukokit.synthetic.smear import draw_smear, save_smear
from leukokit.taxonomy import KINDS

Field = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


def random_fields(seed: int) -> list[Field]:
    """Per field: detections, distinct scores, cells; some detections near a cell, some not."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    scores = iter(rng.permutation(200).astype(np.float32) / 200)
    fields = []
    for _ in range(count):
        corners = rng.uniform(0, 150, (int(rng.integers(0, 12)), 2))
        truth = np.hstack([corners, corners + rng.uniform(10, 60, corners.shape)])
        near = np.repeat(truth, rng.integers(0, 3, len(truth)), axis=0)
        near = near + rng.normal(0, 5, near.shape)
        corners = rng.uniform(0, 150, (int(rng.integers(0, 6)), 2))
        boxes = np.vstack([near, np.hstack([corners, corners + rng.uniform(10, 60, corners.shape)])])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        own = np.array([next(scores) for _ in boxes], np.float32)
        fields.append((boxes.astype(np.float32), own, truth.astype(np.float32)))
    return fields


def reference(fields: list[Field]) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    def row(image: int, box: npt.NDArray[np.float32]) -> dict[str, object]:
        x1, y1, x2, y2 = (float(side) for side in box)
        size = [x2 - x1, y2 - y1]
        return {"image_id": image, "category_id": 1, "bbox": [x1, y1, *size], "area": size[0] * size[1]}

    truths = [row(number, box) | {"iscrowd": 0} for number, field in enumerate(fields, 1) for box in field[2]]
    answers = [
        row(number, box) | {"score": float(score)}
        for number, field in enumerate(fields, 1)
        for box, score in zip(field[0], field[1], strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO(
            {
                "images": [{"id": number} for number in range(1, len(fields) + 1)],
                "annotations": [truth | {"id": number} for number, truth in enumerate(truths, 1)],
                "categories": [{"id": 1, "name": "cell"}],
            }
        )
        run = COCOeval_faster(ground, ground.loadRes(answers), iouType="bbox", print_function=lambda _: None)
        run.params.iouThrs = np.array([0.5])
        run.params.maxDets = [1, 10, 1000]
        run.evaluate()
        run.accumulate()
    return float(run.eval["precision"][0, :, 0, 0, -1].mean())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_average_precision_is_cocos(seed: int) -> None:
    fields = random_fields(seed)
    truth = sum(len(field[2]) for field in fields)
    if not truth or not any(len(field[0]) for field in fields):
        return
    matched = [match(*field) for field in fields]
    scores = np.concatenate([scores for scores, _ in matched])
    hits = np.concatenate([hits for _, hits in matched])
    assert average_precision(scores, hits, truth) == pytest.approx(reference(fields), abs=1e-6)


def test_average_precision_at_its_ends() -> None:
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert average_precision(scores, np.array([True, True, True]), 3) == 1.0
    assert average_precision(scores, np.array([False, False, False]), 3) == 0.0
    assert average_precision(scores, np.array([True, True, True]), 6) == pytest.approx(51 / 101)
    assert average_precision(scores, np.zeros(3, bool), 0) == 0.0
    assert average_precision(np.empty(0, np.float32), np.empty(0, bool), 4) == 0.0


def test_cell_is_met_once_and_by_the_best_score() -> None:
    truth = np.array([[0, 0, 10, 10]], np.float32)
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    scores, hits = match(boxes, np.array([0.9, 0.5, 0.95], np.float32), truth)
    assert scores.tolist() == pytest.approx([0.95, 0.9, 0.5])
    assert hits.tolist() == [False, True, False]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[AnnotatedField], dict[str, object]]:
    folder = tmp_path_factory.mktemp("fields")
    annotated = [KINDS, ("leukocyte",), ("leukocyte", "erythrocyte")]
    fields = []
    for seed, kinds in enumerate(annotated):
        drawn = draw_smear(seed, 400, 300, 2, 40.0)
        path = folder / f"{seed}.png"
        save_smear(drawn, path)
        kept = [number for number, kind in enumerate(drawn.kinds) if kind in kinds]
        fields.append(
            AnnotatedField(
                path,
                "drawn",
                "drawn",
                f"photo{seed}",
                "",
                "test",
                tuple(kinds),
                [drawn.boxes[number].tolist() for number in kept],
                [drawn.kinds[number] for number in kept],
                [drawn.labels[number] for number in kept],
            )
        )
    lost = AnnotatedField(folder / "lost.png", "drawn", "drawn", "lost", "", "test", ("leukocyte",))
    console = Console(file=io.StringIO(), width=120)
    figures = evaluate_detector(Pipeline(device="cpu"), [*fields, lost])
    console.print(detection_table(figures))
    return fields, figures | {"printed": console.file.getvalue()}  # type: ignore[attr-defined]  # StringIO


def test_limits_hold_the_figure(measured: tuple[list[AnnotatedField], dict[str, Any]]) -> None:
    for row in measured[1]["kinds"].values():
        for figure in ("ap50", "precision", "recall"):
            low, high = row[f"{figure}_interval"]
            assert 0 <= low <= row[figure] <= high <= 1


def test_kind_is_measured_where_it_is_annotated(
    measured: tuple[list[AnnotatedField], dict[str, Any]],
) -> None:
    fields, figures = measured
    assert {kind: row["fields"] for kind, row in figures["kinds"].items()} == {
        "leukocyte": 3,
        "erythrocyte": 2,
        "platelet": 1,
    }
    for kind, row in figures["kinds"].items():
        assert row["cells"] == sum(field.kinds.count(kind) for field in fields)
    # Had the unannotated field counted, a third of the erythrocytes would be false.
    assert figures["kinds"]["erythrocyte"]["precision"] > 0.8


def test_drawn_leukocytes_are_found(measured: tuple[list[AnnotatedField], dict[str, Any]]) -> None:
    row = measured[1]["kinds"]["leukocyte"]
    assert row["ap50"] > 0.8 and row["recall"] > 0.8
    assert row["ap50_95"] <= row["ap50"]
    assert row["count_error"] <= 1


def test_means_and_threshold(measured: tuple[list[AnnotatedField], dict[str, Any]]) -> None:
    figures = measured[1]
    rows = figures["kinds"].values()
    assert figures["map50"] == pytest.approx(np.mean([row["ap50"] for row in rows]), abs=1e-3)
    assert figures["threshold"] == Pipeline(device="cpu").detector.confidence


def test_image_that_cannot_be_read_is_reported_and_left_out(
    measured: tuple[list[AnnotatedField], dict[str, Any]],
) -> None:
    figures = measured[1]
    assert figures["fields"] == figures["photos"] == 3
    assert len(figures["failures"]) == 1 and "lost.png" in figures["failures"][0]


def test_no_field_that_can_be_read_is_an_error() -> None:
    lost = AnnotatedField(Path("lost.png"), "drawn", "drawn", "lost", "", "test", ("leukocyte",))
    with pytest.raises(DataError, match=r"every field failed.*lost\.png"):
        evaluate_detector(Pipeline(device="cpu"), [lost])


def test_cells_are_neither_linked_nor_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(self: Pipeline, *_: object) -> None:
        raise AssertionError("only the detector is measured")

    save_smear(draw_smear(0, 200, 150, 1, 40.0), tmp_path / "a.png")
    one = AnnotatedField(tmp_path / "a.png", "drawn", "drawn", "a", "", "test", ("leukocyte",))
    for stage in ("build", "label"):
        monkeypatch.setattr(Pipeline, stage, refuse)
    assert evaluate_detector(Pipeline(device="cpu"), [one])["fields"] == 1


@pytest.mark.parametrize(("holding", "others"), [(6, 1), (3, 3), (2, 200)])
def test_all_right_is_not_certain(holding: int, others: int) -> None:
    one = np.ones(1, np.float32)
    tally = _Tally([Matches(f"p{number}", one, one > 0, 1) for number in range(holding)])
    # A photograph without a cell has no part in the recall.
    tally.matches += [Matches(f"q{number}", one[:0], one[:0] > 0, 0) for number in range(others)]
    row = _kind_figures(tally, 0.5)
    exact = [round(clopper_pearson(holding, holding)[0], 4), 1.0]
    assert row["recall"] == row["precision"] == row["ap50"] == 1
    assert row["recall_interval"] == row["precision_interval"] == row["ap50_interval"] == exact
    assert exact[0] < 0.6


def test_nothing_found_is_no_figure_that_is_not_a_number() -> None:
    none = np.empty(0, np.float32)
    row = _kind_figures(_Tally([Matches(f"p{number}", none, none > 0, 1) for number in range(4)]), 0.5)
    assert (row["ap50"], row["precision"], row["recall"]) == (0, 0, 0)
    assert row["precision_interval"] == [0, 1]


@pytest.mark.parametrize("width", [80, 60])
def test_no_figure_is_cut_on_a_narrow_terminal(
    measured: tuple[list[AnnotatedField], dict[str, Any]], width: int
) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(detection_table(measured[1]))
    printed = console.file.getvalue()  # type: ignore[attr-defined]  # StringIO
    assert "…" not in printed
    if width == 80:
        for row in measured[1]["kinds"].values():
            for low, high in (row["ap50_interval"], row["recall_interval"]):
                assert f"({low:.3f}-{high:.3f})" in printed


def test_figures_are_json_and_a_table(measured: tuple[list[AnnotatedField], dict[str, Any]]) -> None:
    figures = measured[1]
    assert json.loads(json.dumps(figures, allow_nan=False))["kinds"]
    for kind in figures["kinds"]:
        assert kind in figures["printed"]
