"""``leukokit export``: files that run, with cards, and refusals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leukokit import weights
from leukokit.cells import Cells, Labelling
from leukokit.classifiers.altarawneh import AltarawnehClassifier, AltarawnehParams
from leukokit.cli import main
from leukokit.engines.base import Model
from leukokit.engines.choose import load
from leukokit.errors import ConfigError, WeightsError
from leukokit.export import formats
from leukokit.export.formats import export
from leukokit.export.int8 import compare_results
from leukokit.export.targets import classifier_targets
from leukokit.results import SmearResult
from leukokit.smear import Smear

EXAMPLE = Path(__file__).parents[2] / "examples" / "smear.png"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["leukokit", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torchscript"])
def test_exported_classifier_returns_what_torch_returns(tmp_path: Path, kind: str) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    (target,) = classifier_targets("altarawneh", None)
    path, apart = export(target, kind, tmp_path)
    assert 0 <= apart < 1e-4 and path.stem == "leukocyte-altarawneh"
    card = weights.read_card(path, weights.ClassifierCard)
    assert card.sha256 == weights.sha256_of(path) and card.classes == target.card.model_dump()["classes"]


def test_openvinos_values_are_checked(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    (target,) = classifier_targets("altarawneh", None)
    path, _ = export(target, "openvino", tmp_path)
    plugin = AltarawnehClassifier(AltarawnehParams(weights=path))
    assert plugin.network.engine.startswith("openvino")
    values = path.with_suffix(".bin")
    values.write_bytes(b"\0" * values.stat().st_size)
    with pytest.raises(WeightsError, match="SHA-256 is not the card's"):
        _ = AltarawnehClassifier(AltarawnehParams(weights=path)).network
    values.unlink()
    with pytest.raises(WeightsError, match=r"cannot be read with its \.bin"):
        _ = AltarawnehClassifier(AltarawnehParams(weights=path)).network


def test_exported_files_run_in_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "export", "detector", "--out", tmp_path) == 0
    assert run(monkeypatch, "export", "classifier", "--out", tmp_path) == 0
    assert capfd.readouterr().out.count("differs from torch by at most") == 3
    counted = []
    for chosen in ("", tmp_path / "{}.onnx"):
        settings = [
            f"--set={section}.weights={str(chosen).format(name)}"
            for section, name in (("detector", "smear-yolo11n"), ("classifier", "leukocyte-hybrid"))
            if chosen
        ]
        assert run(monkeypatch, "detect", EXAMPLE, "--json", "--quiet", *settings) == 0
        document = json.loads(capfd.readouterr().out)
        counted.append((document["counts"], document["differential"]))
    assert counted[0] == counted[1]


def test_export_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (target,) = classifier_targets("altarawneh", None)

    def wrong(model: Model, engine: Any) -> Any:
        network = load(model, engine)
        return lambda inputs: {name: values + 0.01 for name, values in network(inputs).items()}

    monkeypatch.setattr(formats, "load", wrong)
    with pytest.raises(WeightsError, match="returns other values than in torch"):
        export(target, "onnx", tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_are_not_written_over(tmp_path: Path) -> None:
    (target,) = classifier_targets("altarawneh", None)
    path, _ = export(target, "onnx", tmp_path)
    with pytest.raises(ConfigError, match="is the weight file itself"):
        export(replace(target, path=path), "onnx", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["detector", "--int8"], "go together"),
        (["classifier", "--int8", "--calibrate", "."], "is offered for a detector"),
        (["detector", "--weights", "gone"], "no such weight file"),
        (["classifier", "--classifier", "gone"], "no classifier is called 'gone'"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "export", *arguments, "--out", tmp_path) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_changed_counts_and_labels_are_refused() -> None:
    exact = result([0] * 200, "a")
    assert compare_results([exact], [exact]).is_allowed
    assert compare_results([exact], [result([0] * 199, "a")]).is_allowed
    assert not compare_results([exact], [result([0] * 198, "a")]).is_allowed
    # One more in one field and one fewer in another are two that moved.
    more, fewer = result([0] * 201, "a"), result([0] * 199, "a")
    assert (
        not compare_results([exact], [more]).moved == compare_results([exact] * 2, [more, fewer]).moved == 2
    )
    changed = compare_results([exact], [result([0] * 200, "a", others=3)])
    assert (changed.labels, changed.is_allowed) == (3, False)
    assert compare_results([exact], [result([0] * 200, "a", others=2)]).is_allowed


def result(kinds: list[int], label: str, others: int = 0) -> SmearResult:
    """Cells side by side, the first ``others`` of another class."""
    count = len(kinds)
    left = np.arange(count, dtype=np.float32) * 10
    boxes = np.stack([left, np.zeros(count), left + 8, np.full(count, 8.0)], axis=1).astype(np.float32)
    chances = np.tile(np.array([1, 0], np.float32), (count, 1))
    chances[:others] = [0, 1]
    cells = Cells(boxes, np.array(kinds), np.full(count, 0.9, np.float32))
    cells = cells.with_labelling(Labelling(chances, (label, "b")))
    smear = Smear.from_array(np.zeros((10, 10, 3), np.uint8))
    return SmearResult(smear, cells, Path("x"), {}, 0.1)


def test_int8_detector_runs_and_has_a_card(tmp_path: Path) -> None:
    from leukokit.config import PipelineConfig
    from leukokit.export.int8 import export_int8
    from leukokit.export.targets import detector_targets
    from leukokit.synthetic.smear import draw_smear, save_smear

    (tmp_path / "fields").mkdir()
    for seed in range(2):
        save_smear(draw_smear(seed, 320, 240, 2, 40.0), tmp_path / "fields" / f"{seed}.png")
    (target,) = detector_targets(weights.find("smear-yolo11n"), trust_pickle=False)
    config = PipelineConfig(classifier=None)
    path, change = export_int8(target, tmp_path / "fields", tmp_path / "out", config, lambda line: None)
    assert change.fields == 2 and change.leukocytes == 4 and change.moved == 0
    card = weights.read_card(path, weights.DetectorCard)
    assert card.name == "smear-yolo11n-int8" and path.stat().st_size < 6_000_000
    network = load(Model.exported(path, (card.sha256, ""), ("pictures",), ("anchors",)))
    assert network({"pictures": np.zeros((1, 64, 64, 3), np.uint8)})["anchors"].shape == (1, 7, 84)
