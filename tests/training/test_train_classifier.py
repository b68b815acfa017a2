"""Annotated cells as the detector sees them, and the training of a classifier on them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import Cells
from leukokit.cli import main
from leukokit.config import PipelineConfig
from leukokit.datasets.detected import CROP_PX, load_detected, match_labels
from leukokit.datasets.fields import AnnotatedField
from leukokit.errors import ConfigError, DataError
from leukokit.evaluation.classification import predict_detected
from leukokit.images.standardize import WHITE
from leukokit.pipeline import Pipeline
from leukokit.registry import classifiers, load_plugin_file
from leukokit.training.calibration import FEWEST_HELD, UNCALIBRATED, calibration_of
from leukokit.training.cells import rarity, training_cells
from leukokit.training.classifier import ClassifierRecipe, train_classifier
from leukokit.training.loop import Training
from leukokit.training.views import Variation, _cut_off, plain_view, varied_view
from leukokit.weights import ClassifierCard, read_card

SMEAR = Path(__file__).parents[2] / "examples" / "smear.png"
CLASSES = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]


def field(boxes: list[list[float]], labels: list[str], image: Path = SMEAR) -> AnnotatedField:
    kinds = ["leukocyte"] * len(boxes)
    return AnnotatedField(image, "txl-pbc", "pbc", "a", "", "train", (), boxes, kinds, labels)


def test_what_was_seen_is_read_back(folder: Path) -> None:
    seen = load_detected(folder)
    (one,) = seen.fields
    assert one.source.image.resolve() == SMEAR.resolve() and one.source.lab == "pbc"
    assert len(one.labels) == len(one.cells) == len(one.appearance)
    assert seen.crops.shape[1:] == (CROP_PX, CROP_PX, 3)
    assert one.cells.scores[-1] == 0 and one.labels[-1] == "monocyte"
    assert len(one.annotated) == (one.cells.kinds == 0).sum()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leukokit data cells"):
        load_detected(tmp_path)


def test_a_picture_of_one_cell_is_the_large_one_in_the_middle() -> None:
    boxes = np.array([[30, 30, 70, 70], [0, 0, 42, 42], [20, 20, 90, 90]])
    cells = Cells(boxes, np.array([0, 0, 1]), np.ones(3, np.float32))
    same, labels = match_labels(field([[0, 0, 100, 100]], ["monocyte"]), cells, (100, 100))
    assert same is cells and labels == ["monocyte", "", ""]
    alone, labels = match_labels(field([[0, 0, 100, 100]], ["monocyte"]), Cells.empty(), (100, 100))
    assert alone.boxes.tolist() == [[25, 25, 75, 75]] and labels == ["monocyte"] and alone.scores[0] == 0


def test_no_detected_cell_gets_two_labels() -> None:
    cells = Cells(np.array([[10, 10, 30, 30]]), np.array([0]), np.ones(1, np.float32))
    both = field([[10, 10, 30, 30], [12, 12, 32, 32]], ["monocyte", "basophil"])
    merged, labels = match_labels(both, cells, (100, 100))
    assert labels == ["monocyte", "basophil"] and len(merged) == 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([64, 80, 96]), st.floats(1.0, 2.0))
def test_views_have_the_size_asked_for(seed: int, px: int, cover: float) -> None:
    crop = np.random.default_rng(seed).integers(0, 256, (CROP_PX, CROP_PX, 3), dtype=np.uint8)
    once, again = (
        varied_view(crop, px, cover, None, Variation(hue=0.2), np.random.default_rng(seed)) for _ in "ab"
    )
    assert once.shape == (px, px, 3) and once.dtype == np.uint8 and (once == again).all()
    assert plain_view(crop, px, cover).shape == (px, px, 3)


def recipe(folder: Path, **changes: object) -> ClassifierRecipe:
    values: dict[str, object] = {
        "name": "mine",
        "classifier": "altarawneh",
        "cells": [folder],
        "train": [{"dataset": "txl-pbc"}],
        "crop_px": 64,
        "steps": 6,
        "batch": 4,
        "check_every": 4,
        "workers": 0,
        "held_back": 0.0,
    }
    return ClassifierRecipe.model_validate(values | changes)


def test_a_trained_classifier_is_loaded_and_measured(folder: Path, tmp_path: Path) -> None:
    path = train_classifier(recipe(folder), tmp_path, command="leukokit train", report=lambda _: None)
    card = read_card(path, ClassifierCard)
    assert card.classes == CLASSES and card.command == "leukokit train" and card.data[0]["leukocytes"] > 5
    config = PipelineConfig.model_validate({"classifier": {"name": "altarawneh", "weights": str(path)}})
    predictions = predict_detected(Pipeline.from_config(config), load_detected(folder).fields)
    assert len(predictions.labels) == len(load_detected(folder).fields[0].annotated)
    with pytest.raises(ConfigError, match="no classifier"):
        predict_detected(Pipeline.from_config(PipelineConfig(classifier=None)), load_detected(folder).fields)


def test_a_stopped_run_goes_on_to_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_classifier(recipe(folder), tmp_path / "whole", report=lambda _: None)
    (tmp_path / "half").mkdir()
    with pytest.raises(ConfigError, match="nothing to resume"):
        train_classifier(recipe(folder), tmp_path / "half", resume=True, report=lambda _: None)
    advance = Training.advance

    def stops(training: Training, loss: torch.Tensor) -> float:
        if training.step == 5:
            raise KeyboardInterrupt
        return advance(training, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", stops)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(recipe(folder), tmp_path / "half", report=lambda _: None)
    # Its last checkpoint was after the fourth of six steps.
    assert torch.load(tmp_path / "half" / "state.pt", weights_only=True)["step"] == 4
    again = train_classifier(recipe(folder), tmp_path / "half", resume=True, report=lambda _: None)
    assert whole.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"leave_out": ["other"]}, r"leave_out was \[\], is \['other'\]"),
        ({"seed": 5, "steps": 9}, "steps was 6, is 9; seed was 0, is 5"),
    ],
)
def test_a_run_of_another_recipe_is_not_gone_on_with(
    folder: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    train_classifier(recipe(folder, steps=6), tmp_path, report=lambda _: None)
    with pytest.raises(ConfigError, match=said) as caught:
        train_classifier(recipe(folder, **changes), tmp_path, resume=True, report=lambda _: None)
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkpoint_of_an_older_version_is_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    train_classifier(recipe(folder), tmp_path, report=lambda _: None)
    stored = torch.load(tmp_path / "state.pt", weights_only=True)
    del stored["recipe"]
    torch.save(stored, tmp_path / "state.pt")
    with pytest.raises(ConfigError, match=r"state\.pt: a checkpoint of an older version.*--resume"):
        train_classifier(recipe(folder), tmp_path, resume=True, report=lambda _: None)


def test_a_damaged_checkpoint_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    for content in (b"", b"no checkpoint", b"PK" + bytes(40)):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(ConfigError, match=r"state\.pt: a damaged checkpoint") as caught:
            train_classifier(recipe(folder), tmp_path, resume=True, report=lambda _: None)
        assert len(str(caught.value).splitlines()) == 1


def told(right: int, wrong: int, margin: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of cells of two classes, all as sure, and the true classes."""
    logits = np.zeros((right + wrong, 2), np.float32)
    logits[:, 0] = margin
    return logits, np.array([0] * right + [1] * wrong)


def test_a_calibration_that_cannot_reach_its_target_leaves_all_for_review() -> None:
    said: list[str] = []
    temperature, review_threshold = calibration_of(*told(20, 20), 0.98, said.append)
    assert review_threshold == 1.0 and temperature > 1
    assert (
        said[-1]
        == "held back: no review threshold gives an accuracy of 0.98: every leukocyte will be for review"
    )
    said.clear()
    assert calibration_of(*told(40, 0), 0.98, said.append)[1] == 0.0
    assert len(said) == 1 and "review threshold 0.00" in said[0]


def test_too_few_cells_calibrate_nothing() -> None:
    said: list[str] = []
    assert calibration_of(*told(3, FEWEST_HELD - 4), 0.98, said.append) == UNCALIBRATED == (1.0, 0.0)
    assert said == [
        f"held back: {FEWEST_HELD - 1} cells are too few to set temperature and review threshold on"
    ]


def test_a_training_without_calibration_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(recipe(folder).model_dump_json())
    command = ["leukokit", "train", "classifier", "--config", str(tmp_path / "r.yaml"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "not calibrated: no leukocyte will be unclassified" in capsys.readouterr().out.splitlines()


def test_what_a_recipe_selects(folder: Path) -> None:
    cells, held = training_cells(recipe(folder))
    assert cells and not held
    weights = rarity(cells, 1.0)
    per_class = [weights[[cell.label == c for cell in cells]].sum() for c in range(5)]
    np.testing.assert_allclose(per_class, 0.2)
    with pytest.raises(DataError, match=r"selects no .*; there are: txl-pbc \(lab pbc; split train\)"):
        training_cells(recipe(folder, leave_out=["pbc"]))
    with pytest.raises(ConfigError, match="'altarawneh' takes 64"):
        train_classifier(recipe(folder, crop_px=80), folder.parent / "no", report=lambda _: None)


def test_a_network_of_another_package_is_trained_as_the_page_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "_registered", {})
    tutorial = Path(__file__).parents[2] / "docs" / "tutorials" / "your-own-plugin.md"
    page = tutorial.read_text(encoding="utf-8")
    (tmp_path / "crop_net.py").write_text(page.split("# crop_net.py\n")[1].split("```")[0])
    load_plugin_file(tmp_path / "crop_net.py")
    changes = {"classifier": "crop-net", "name": "crop-net", "crop_px": 48}
    path = train_classifier(recipe(folder, **changes), tmp_path, report=lambda _: None)
    card = read_card(path, ClassifierCard)
    assert (card.architecture, card.crop_px) == ("crop-net", 48)
    choice = {"classifier": {"name": "crop-net", "weights": str(path)}}
    result = Pipeline.from_config(PipelineConfig.model_validate(choice)).run(SMEAR)
    assert sum(result.cells.class_counts.values()) > 5
    assert result.provenance["classifier"]["params"]["weights"] == "crop-net"


def test_a_classifier_that_looks_at_no_crops_is_not_trained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CropClassifier"):
        train_classifier(recipe(folder, classifier="hybrid"), tmp_path, report=lambda _: None)


def test_a_crop_cut_off_as_by_an_edge_keeps_half_the_cell_and_centres_on_it() -> None:
    cell = round(CROP_PX / 2.4)
    start = (CROP_PX - cell) // 2
    crop = np.full((CROP_PX, CROP_PX, 3), 200, np.uint8)
    crop[start : start + cell, start : start + cell] = (90, 40, 140)
    for seed in range(20):
        cut, middle = _cut_off(crop, np.random.default_rng(seed))
        seen = np.flatnonzero((cut[CROP_PX // 2] == (90, 40, 140)).all(axis=1))
        assert 0.48 * cell <= len(seen) <= 0.97 * cell
        assert abs((seen[0] + seen[-1] + 1) / 2 - middle) <= 1
        assert (cut[:, seen[-1] + 1 :] == int(WHITE)).all()
    assert (crop != int(WHITE)).all()
