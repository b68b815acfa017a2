"""Detector ``yolo-cnn``: what its CNN decides, how the CNN is trained, and the contract."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from leukokit.cells import Cells
from leukokit.datasets.fields import AnnotatedField, Selection, write_fields
from leukokit.detectors.yolo.detector import YoloDetector
from leukokit.errors import ConfigError, DataError
from leukokit.smear import Smear, read_smear
from leukokit.taxonomy import KINDS, LEUKOCYTE
from leukokit.testing import run_checks
from leukokit.weights import ClassifierCard, read_card, sha256_of
from leukokit.weights.files import save_weights

from leukokit_zoo.judge_training import CLASSES, JudgedCrops, JudgeRecipe, load_fields, train_judge
from leukokit_zoo.train import main
from leukokit_zoo.wbcsnet import WbcsNet
from leukokit_zoo.yolo_cnn import YoloCnnDetector

SMEAR = Path(__file__).parents[3] / "examples" / "smear.png"
pytestmark = pytest.mark.skipif(not SMEAR.exists(), reason="leukokit's examples/smear.png is not there")


@pytest.fixture(scope="module")
def smear() -> Smear:
    return read_smear(SMEAR)


@pytest.fixture(scope="module")
def by_yolo(smear: Smear) -> Cells:
    return YoloDetector(YoloDetector.parse({"confidence": 0.4})).detect([smear])[0]


@pytest.fixture(scope="module")
def fields(smear: Smear, by_yolo: Cells, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fields") / "fields.jsonl"
    kinds = [KINDS[kind] for kind in by_yolo.kinds]
    rows = [
        AnnotatedField(SMEAR, "txl-pbc", "a", "one", "", "train", KINDS, by_yolo.boxes.tolist(), kinds),
        AnnotatedField(
            SMEAR, "txl-pbc", "a", "two", "", "train", ("leukocyte",), [[1, 1, 9, 9]], ["leukocyte"]
        ),
    ]
    write_fields(path, rows)
    return path


def recipe(fields: Path, **values: object) -> JudgeRecipe:
    return JudgeRecipe.model_validate(
        {"name": "j", "fields": fields, "train": [Selection(dataset="txl-pbc")], "batch": 8, "steps": 2}
        | values
    )


def certain(folder: Path, lean: float) -> Path:
    """Weights of a CNN that says of every crop, by ``lean`` in logits, that it is a leukocyte."""
    network, path = WbcsNet(len(CLASSES)), folder / "judge.safetensors"
    with torch.no_grad():
        network.head[-1].weight.zero_()
        network.head[-1].bias.copy_(torch.tensor([lean, 0.0]))
    save_weights(network, path)
    card = ClassifierCard(
        name="j", architecture="wbcsnet", sha256=sha256_of(path), classes=CLASSES, crop_px=32, cover=1.3,
        nucleus=False, temperature=1.0, review_threshold=0.0,
    )  # fmt: skip
    path.with_suffix(".json").write_text(card.model_dump_json())
    return path


def split(cells: Cells) -> tuple[Cells, Cells]:
    return cells[cells.kinds == LEUKOCYTE], cells[cells.kinds != LEUKOCYTE]


@pytest.mark.parametrize(("lean", "kept"), [(30.0, True), (-30.0, False)])
def test_the_cnn_decides_on_leukocytes_alone(
    smear: Smear, by_yolo: Cells, tmp_path: Path, lean: float, kept: bool
) -> None:
    values = {"judge": certain(tmp_path, lean), "candidates": 0.4, "confidence": 0.4}
    detector = YoloCnnDetector(YoloCnnDetector.parse(values))
    (judged, others), (before, before_others) = split(detector.detect([smear])[0]), split(by_yolo)
    np.testing.assert_array_equal(others.boxes, before_others.boxes)
    np.testing.assert_array_equal(others.scores, before_others.scores)
    assert len(before) > 5 and len(before_others) > 100
    if kept:
        np.testing.assert_array_equal(judged.boxes, before.boxes)
        np.testing.assert_allclose(judged.scores, np.sqrt(before.scores), rtol=1e-5)
    else:
        assert len(judged) == 0
    assert sha256_of(values["judge"]) in detector.provenance()["weights"].values()
    assert detector.provenance()["params"]["confidence"] == 0.4


def test_what_the_cnn_learns_from(fields: Path) -> None:
    loaded = load_fields(list(_read(fields)))
    crops = JudgedCrops(loaded, recipe(fields), 200)
    labels = [crops[number][1] for number in range(200)]
    assert 70 < sum(labels) < 130
    crop, _ = crops[0]
    assert crop.shape == (3, 48, 48) and crop.dtype == torch.uint8
    assert torch.equal(crop, JudgedCrops(loaded, recipe(fields), 200)[0][0])


def _read(path: Path) -> list[AnnotatedField]:
    from leukokit.datasets.fields import read_fields

    return list(read_fields(path))[:1]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of the training command."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_it_is_trained_from_a_recipe(
    fields: Path,
    smear: Smear,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, path = tmp_path / "judge.yaml", tmp_path / "j" / "best.safetensors"
    config.write_text(f"name: j\nfields: {fields}\ntrain: [{{dataset: txl-pbc}}]\nsteps: 2\nbatch: 8\n")
    options = ["--config", config, "--out", tmp_path, "--device", "cpu", "--set", "held_back=0"]
    assert run(monkeypatch, "yolo-cnn", *options) == 0
    said = capsys.readouterr().out
    # The field with leukocytes alone annotated would call erythrocytes background.
    assert "1 fields to train on" in said and f"wrote {path}" in said
    card = read_card(path, ClassifierCard)
    assert card.classes == CLASSES and "leukokit_zoo.train yolo-cnn" in card.command
    YoloCnnDetector(YoloCnnDetector.parse({"judge": path})).detect([smear])


def test_a_stopped_training_is_resumed(fields: Path, tmp_path: Path) -> None:
    own = recipe(fields, steps=3, check_every=1)
    whole = train_judge(own, tmp_path / "whole", report=lambda _: None)

    # The checkpoint of the last step is all that a resumed run needs.
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (resumed / "state.pt").write_bytes((tmp_path / "whole" / "state.pt").read_bytes())
    again = train_judge(own, resumed, resume=True, report=lambda _: None)
    assert again.read_bytes() == whole.read_bytes()
    with pytest.raises(ConfigError, match="nothing to resume"):
        train_judge(own, tmp_path / "none", resume=True, report=lambda _: None)


def test_what_cannot_be_trained_is_said_in_a_line(
    fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="selects no field with a leukocyte"):
        train_judge(recipe(fields, train=[Selection(dataset="bccd")]), tmp_path)
    assert run(monkeypatch, "resnet", "--config", fields) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'resnet' cannot be trained here; there are: detr" in said


def test_it_keeps_the_contract() -> None:
    assert [outcome.message for outcome in run_checks(YoloCnnDetector).outcomes if not outcome.passed] == []
