"""The whole pipeline measured on fields whose outcome is known by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from leukokit.cells import Cells
from leukokit.classifiers.base import Classifier
from leukokit.cli.tables import pipeline_tables
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.datasets.fields import AnnotatedField
from leukokit.detectors.base import Detector
from leukokit.errors import ConfigError, DataError
from leukokit.evaluation.classification import evaluate
from leukokit.evaluation.end_to_end import (
    MISSED,
    NO_CELL,
    CellOutcome,
    end_to_end_note,
    evaluate_pipeline,
    figures_of,
)
from leukokit.evaluation.predictions import Predictions
from leukokit.graph import CellGraph
from leukokit.metrics.intervals import clopper_pearson
from leukokit.metrics.matching import match, partners
from leukokit.pipeline import Pipeline
from leukokit.registry import classifiers, detectors
from leukokit.smear import Smear
from leukokit.taxonomy import ERYTHROBLAST, KINDS, UNCLASSIFIED

CLASSES = ("neutrophil", "lymphocyte", "monocyte")
A, B, C, D, E = ([x, 10.0, x + 20.0, 30.0] for x in (10.0, 40.0, 70.0, 100.0, 130.0))
"""Places of cells, far from each other."""
SURE_N, SURE_L, SURE_M = ([0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9])
UNSURE_L = [0.3, 0.4, 0.3]

Finding = tuple[str, list[float], list[float]]
"""Kind, box and class probabilities of a detection."""


class Said(Detector):
    """Finds in each image what a test says."""

    name, version, summary = "said", "1", "what a test says"
    findings: ClassVar[dict[str, list[Finding]]] = {}

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        return [self.cells(smear) for smear in smears]

    def cells(self, smear: Smear) -> Cells:
        found = said(smear)
        boxes = np.array([box for _, box, _ in found], np.float32).reshape(-1, 4)
        kinds = np.array([KINDS.index(kind) for kind, _, _ in found], np.int64)
        return Cells(boxes, kinds, np.linspace(0.9, 0.5, len(found), dtype=np.float32))


class Told(Classifier):
    """Gives each detection the probabilities a test says."""

    name, version, summary = "told", "1", "what a test says"
    classes = CLASSES
    least: ClassVar[float] = 0.5

    @property
    def review_threshold(self) -> float:
        return self.least

    def classify(self, smears: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[npt.NDArray[np.float32]]:
        return [
            np.array([chances for _, _, chances in said(smear)], np.float32).reshape(-1, 3)
            for smear in smears
        ]


def said(smear: Smear) -> list[Finding]:
    assert smear.path is not None
    return Said.findings[smear.path.stem]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(detectors, "_registered", {"said": Said})
    monkeypatch.setattr(classifiers, "_registered", {"told": Told})
    config = PipelineConfig(
        standardize=False, detector=PluginChoice(name="said"), classifier=PluginChoice(name="told")
    )
    return Pipeline.from_config(config, "cpu")


def field(
    folder: Path,
    name: str,
    labels: dict[str, list[float]] | list[tuple[str, list[float]]],
    photo: str = "",
    annotated: tuple[str, ...] = ("leukocyte",),
    dataset: str = "drawn",
) -> AnnotatedField:
    """An empty picture of 160 x 40 pixels with leukocytes annotated."""
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    path = folder / f"{name}.png"
    Image.new("RGB", (160, 40), (230, 220, 225)).save(path)
    return AnnotatedField(
        path, dataset, "lab", photo or name, "", "test", annotated,
        [box for _, box in pairs], ["leukocyte"] * len(pairs), [label for label, _ in pairs],
    )  # fmt: skip


def shifted(box: list[float], by: float) -> list[float]:
    return [box[0] + by, box[1], box[2] + by, box[3]]


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[AnnotatedField]:
    """Two fields: seven annotated leukocytes, one without a class; six detections of leukocytes."""
    findings: dict[str, list[Finding]] = {
        "one": [
            ("leukocyte", shifted(A, 2), SURE_N),  # a neutrophil, told
            ("leukocyte", B, UNSURE_L),  # a lymphocyte, told but unsure
            ("leukocyte", C, SURE_N),  # without a class: no matter what is said
            ("leukocyte", E, SURE_M),  # no cell there
            ("erythrocyte", D, [0.0, 0.0, 0.0]),  # a leukocyte found as another kind is missed
        ],
        "two": [
            ("leukocyte", A, SURE_L),  # a neutrophil taken for a lymphocyte
            ("leukocyte", shifted(B, 12), SURE_M),  # too far from the monocyte: overlap 8 / 32
        ],
    }
    monkeypatch.setattr(Said, "findings", findings)
    return [
        field(tmp_path, "one", [("neutrophil", A), ("lymphocyte", B), ("", C), ("neutrophil", D)]),
        field(tmp_path, "two", {"neutrophil": A, "monocyte": B}),
    ]


def test_figures_worked_by_hand(pipeline: Pipeline, known: list[AnnotatedField]) -> None:
    figures = evaluate_pipeline(pipeline, known)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    head = ("fields", "fields_left_out", "photos", "cells", "cells_found", "review_threshold", "failures")
    assert [figures[key] for key in head] == [2, 0, 2, 5, 3, 0.5, []]
    found = figures["detection"]
    assert [found[key] for key in ("annotated", "found", "missed", "false")] == [6, 4, 2, 2]
    assert (found["recall"], found["precision"]) == (0.6667, 0.6667)
    # Photographs of 3 of 4 and 1 of 2 found, 3 of 4 and 1 of 2 detections right.
    assert found["recall_interval"] == found["precision_interval"] == [0.5, 0.75]
    forced, limited = figures["forced"], figures["with_threshold"]
    # Recalls 1/3, 1, 0 and, unsure ones not told, 1/3, 0, 0.
    assert (forced["balanced_recall"], limited["balanced_recall"]) == (0.4444, 0.1111)
    assert (forced["accuracy"], limited["accuracy"]) == (0.6667, 0.3333)
    assert forced["accuracy_interval"] == [0.0, 1.0]
    assert forced["classes"] == {
        "neutrophil": {"cells": 3, "given": 1, "recall": 0.3333, "precision": 1.0, "f1": 0.5},
        "lymphocyte": {"cells": 1, "given": 2, "recall": 1.0, "precision": 0.5, "f1": 0.6667},
        "monocyte": {"cells": 1, "given": 2, "recall": 0.0, "precision": 0.0, "f1": 0.0},
    }
    assert limited["classes"]["lymphocyte"] == {
        "cells": 1, "given": 1, "recall": 0.0, "precision": 0.0, "f1": 0.0,
    }  # fmt: skip
    assert figures["confusion"] == {
        "rows": [*CLASSES, NO_CELL],
        "columns": [*CLASSES, UNCLASSIFIED, MISSED],
        "counts": [[1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 2, 0, 0]],
    }
    # Annotated 3, 1, 1 of 5; said 1, 1, 2 of 4.
    assert figures["differential"] == {
        "annotated": 5,
        "pipeline": 4,
        "mean_difference": 23.3333,
        "classes": {
            "neutrophil": {"annotated": 60.0, "pipeline": 25.0},
            "lymphocyte": {"annotated": 20.0, "pipeline": 25.0},
            "monocyte": {"annotated": 20.0, "pipeline": 50.0},
        },
    }
    assert figures["provenance"]["classifier"]["name"] == "told"


def test_without_a_limit_nothing_is_said_of_one(
    pipeline: Pipeline, known: list[AnnotatedField], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "least", 0.0)
    figures = evaluate_pipeline(pipeline, known)
    assert figures["with_threshold"] is None
    assert figures["confusion"]["counts"][1] == [0, 1, 0, 0, 0]
    assert figures["forced"]["balanced_recall"] == 0.4444
    assert not any(
        "*" in str(column.header) for table in pipeline_tables(figures) for column in table.columns
    )


def test_class_unknown_to_the_classifier_and_erythroblasts(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = {"one": [("leukocyte", A, SURE_N), ("leukocyte", B, SURE_L), ("leukocyte", C, SURE_N)]}
    monkeypatch.setattr(Said, "findings", findings)
    labels = {"neutrophil": A, "blast": B, ERYTHROBLAST: C}
    figures = evaluate_pipeline(pipeline, [field(tmp_path, "one", labels)])
    assert figures["confusion"]["rows"] == [*CLASSES, "blast", ERYTHROBLAST, NO_CELL]
    assert figures["forced"]["balanced_recall"] == 0.3333
    blast = figures["forced"]["classes"]["blast"]
    assert blast == {"cells": 1, "given": 0, "recall": 0.0, "precision": None, "f1": 0.0}
    assert figures["forced"]["classes"]["neutrophil"]["precision"] == 0.5
    # Erythroblasts are counted apart; what they are taken for is in the pipeline's count all the same.
    assert figures["differential"]["classes"] == {
        "neutrophil": {"annotated": 50.0, "pipeline": 66.6667},
        "lymphocyte": {"annotated": 0.0, "pipeline": 33.3333},
        "blast": {"annotated": 50.0, "pipeline": 0.0},
    }
    # One photograph does not vary, and is no certainty.
    assert figures["detection"]["recall_interval"] == [0.025, 1.0]


def test_every_cell_is_met_once(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = {"one": [("leukocyte", A, SURE_N), ("leukocyte", shifted(A, 1), SURE_L)]}
    monkeypatch.setattr(Said, "findings", findings)
    figures = evaluate_pipeline(pipeline, [field(tmp_path, "one", {"neutrophil": A})])
    assert figures["confusion"]["counts"][0] == [1, 0, 0, 0, 0]
    assert figures["confusion"]["counts"][-1] == [0, 1, 0, 0, 0]
    assert figures["detection"]["false"] == 1


def test_pipeline_that_finds_nothing(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Said, "findings", {"one": [], "two": []})
    fields = [field(tmp_path, "one", {"neutrophil": A}), field(tmp_path, "two", {})]
    figures = evaluate_pipeline(pipeline, fields)
    found = figures["detection"]
    assert (figures["fields"], found["recall"], found["precision"]) == (2, 0, None)
    assert (figures["forced"]["balanced_recall"], figures["forced"]["accuracy"]) == (0.0, None)
    assert figures["differential"]["mean_difference"] is None
    to = Console(file=io.StringIO(), width=140)
    for table in pipeline_tables(figures):
        to.print(table)


def test_fields_that_are_not_complete_or_not_read(
    pipeline: Pipeline, known: list[AnnotatedField], tmp_path: Path
) -> None:
    partly = field(tmp_path, "partly", {"neutrophil": A}, annotated=("erythrocyte",))
    gone = field(tmp_path, "gone", {"neutrophil": A})
    gone.image.unlink()
    figures = evaluate_pipeline(pipeline, [*known, partly, gone])
    assert (figures["fields"], figures["fields_left_out"], figures["cells"]) == (2, 1, 5)
    assert len(figures["failures"]) == 1 and "gone.png" in figures["failures"][0]
    with pytest.raises(DataError, match=r"gone\.png"):
        evaluate_pipeline(pipeline, [gone])
    with pytest.raises(DataError, match="0 of 1"):
        evaluate_pipeline(pipeline, [partly])
    with pytest.raises(DataError, match="no leukocyte has a class"):
        evaluate_pipeline(pipeline, [field(tmp_path, "plain", {"": A})])


@pytest.mark.parametrize("annotated", [(), ("leukocyte",)])
def test_pictures_of_one_cell_are_refused(
    pipeline: Pipeline, known: list[AnnotatedField], tmp_path: Path, annotated: tuple[str, ...]
) -> None:
    whole = {"neutrophil": [0.0, 0.0, 160.0, 40.0]}
    single = field(tmp_path, "single", whole, annotated=annotated, dataset="crops-of-cells")
    with pytest.raises(DataError, match=r"crops-of-cells: .*'leukokit evaluate classifier'"):
        evaluate_pipeline(pipeline, [*known, single])


def test_a_classifier_is_needed(pipeline: Pipeline, known: list[AnnotatedField]) -> None:
    config = pipeline.config.model_copy(update={"classifier": None})
    with pytest.raises(ConfigError, match="no classifier"):
        evaluate_pipeline(Pipeline.from_config(config, "cpu"), known)


@pytest.mark.parametrize("labs", [("a", "a"), ("a", "b")])
def test_equal_names_of_two_laboratories_are_two_photographs(
    pipeline: Pipeline, known: list[AnnotatedField], labs: tuple[str, str]
) -> None:
    fields = [replace(one, photo="1", lab=lab) for one, lab in zip(known, labs, strict=True)]
    figures = evaluate_pipeline(pipeline, fields)
    assert figures["photos"] == len(set(labs))
    assert (figures["detection"]["recall_interval"] == [0.5, 0.75]) == (len(set(labs)) == 2)


def test_tables_for_people(pipeline: Pipeline, known: list[AnnotatedField]) -> None:
    to = Console(file=io.StringIO(), width=110)
    for table in pipeline_tables(evaluate_pipeline(pipeline, known)):
        to.print(table)
    assert isinstance(to.file, io.StringIO)
    lines = [line.split() for line in to.file.getvalue().splitlines()]
    assert ["lymphocyte", "1", "1.000", "0.500", "0.667", "0.000", "0.000", "0.000", "20.0", "25.0"] in lines
    assert ["leukocytes", "found", "6", "0.667", "(0.500-0.750)"] in lines
    assert lines[-1][-1] == "23.3"


@pytest.mark.parametrize(("cells", "photos"), [(11, 6), (90, 40), (30, 30)])
def test_figures_of_cells_have_the_limits_that_evaluate_classifier_gives(cells: int, photos: int) -> None:
    rng = np.random.default_rng(cells)
    truth = rng.integers(3, size=cells)
    answers = np.where(rng.random(cells) < 0.6, truth, (truth + 1) % 3)
    of_cell = np.sort(np.concatenate([np.arange(photos), rng.integers(photos, size=cells - photos)]))
    chances = np.full((cells, 3), 0.05, np.float32)
    chances[np.arange(cells), answers] = 0.9
    names = np.array([f"p{number:02}" for number in of_cell])
    alone = evaluate(Predictions(truth, chances, CLASSES, names)).forced
    outcomes = [
        [
            CellOutcome(CLASSES[truth[cell]], *[CLASSES[answers[cell]]] * 2)
            for cell in np.flatnonzero(of_cell == photo)
        ]
        for photo in range(photos)
    ]
    forced = figures_of(outcomes, np.arange(photos), CLASSES)["forced"]
    assert forced["accuracy"] == pytest.approx(alone.accuracy, abs=1e-4)
    assert forced["accuracy_interval"] == pytest.approx(alone.accuracy_interval, abs=1e-4)
    assert forced["balanced_recall"] == pytest.approx(alone.balanced_accuracy, abs=1e-4)
    assert forced["balanced_recall_interval"] == pytest.approx(alone.balanced_accuracy_interval, abs=1e-4)


def test_figures_of_few_cells_are_no_certainty() -> None:
    every = [
        [CellOutcome(name, name, name), CellOutcome("neutrophil", "neutrophil", UNCLASSIFIED)]
        for name in CLASSES
    ]
    figures = figures_of(every, np.arange(3), CLASSES)
    assert figures["rare_classes"] == sorted(CLASSES) and end_to_end_note(figures).startswith(
        "fewer than ten cells of "
    )
    exact = [round(clopper_pearson(3, 3)[0], 4), 1.0]
    assert figures["detection"]["recall_interval"] == figures["detection"]["precision_interval"] == exact
    low, high = figures["forced"]["balanced_recall_interval"]
    assert 0.1 < low < 0.9 and high == 1
    assert figures["forced"]["accuracy_interval"] == exact


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_the_best_scored_detection_takes_the_cell_it_overlaps_most(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (int(rng.integers(0, 8)), 2))
    truth = np.hstack([corners, corners + rng.uniform(10, 40, corners.shape)]).astype(np.float32)
    near = np.repeat(truth, rng.integers(0, 4, len(truth)), axis=0)
    boxes = (near + rng.normal(0, 3, near.shape)).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    # Equal scores too: the first of them comes first.
    scores = (rng.integers(1, 6, len(boxes)) / 5).astype(np.float32)
    free, expected = set(range(len(truth))), [-1] * len(boxes)
    for number in sorted(range(len(boxes)), key=lambda n: -scores[n]):
        fits = [(-overlap(boxes[number], truth[cell]), cell) for cell in sorted(free)]
        if fits and min(fits)[0] <= -0.5:
            expected[number] = min(fits)[1]
            free.remove(min(fits)[1])
    met = partners(boxes, scores, truth)
    assert met.tolist() == expected
    assert match(boxes, scores, truth)[1].sum() == (met >= 0).sum()


def overlap(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))


names = st.sampled_from(CLASSES)
outcome = st.one_of(
    st.builds(CellOutcome, st.sampled_from([*CLASSES, "blast", "", NO_CELL]), names, names),
    st.builds(
        lambda truth, top: CellOutcome(truth, top, UNCLASSIFIED), st.sampled_from([*CLASSES, NO_CELL]), names
    ),
    st.builds(lambda truth: CellOutcome(truth, MISSED, MISSED), st.sampled_from([*CLASSES, "blast", ""])),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(outcome, max_size=6), min_size=1, max_size=4), st.data())
def test_the_confusion_table_loses_no_cell(outcomes: list[list[CellOutcome]], data: st.DataObject) -> None:
    outcomes[0].append(CellOutcome("neutrophil", "neutrophil", "neutrophil"))
    photos = np.array([data.draw(st.integers(0, 2)) for _ in outcomes], np.int64)
    figures = figures_of(outcomes, photos, CLASSES)
    every = [one for of_field in outcomes for one in of_field]
    found, counts = figures["detection"], np.array(figures["confusion"]["counts"])
    plain = [one for one in every if one.truth == ""]
    assert counts[:-1].sum() == figures["cells"] == found["annotated"] - len(plain)
    assert counts[-1].sum() == found["false"]
    assert counts[-1, -1] == 0
    detections = sum(one.given != MISSED for one in every)
    assert found["found"] + found["false"] == detections
    assert counts[:, :-1].sum() == detections - sum(one.given != MISSED for one in plain)
    assert counts[:-1, -1].sum() == figures["cells"] - figures["cells_found"]
    right = int(np.trace(counts[: len(CLASSES), : len(CLASSES)]))
    assert figures["with_threshold"]["accuracy"] == round(right / figures["cells_found"], 4)
    for mode in ("forced", "with_threshold"):
        recalls = [row["recall"] for row in figures[mode]["classes"].values() if row["cells"]]
        assert figures[mode]["balanced_recall"] == pytest.approx(np.mean(recalls), abs=1e-4)
        limits = figures[mode]["balanced_recall_interval"]
        assert limits is None or 0 <= limits[0] <= limits[1] <= 1
