"""From a file to a result: what is recorded, what is refused, one image at a time."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch

from leukokit import __version__
from leukokit.cells import Cells
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.detectors.base import Detector
from leukokit.errors import ConfigError, LeukokitError, PluginError
from leukokit.graph import CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.pipeline import Pipeline, resolve_device
from leukokit.registry import detectors, graph_builders
from leukokit.smear import Smear, read_image
from leukokit.synthetic.smear import draw_smear, save_smear
from leukokit.taxonomy import KINDS


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "field.png"
    save_smear(draw_smear(1, 400, 300, 2, 40.0), path)
    return path


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(device="cpu")


def test_result_says_what_was_found_and_how(pipeline: Pipeline, image: Path) -> None:
    result = pipeline.run(str(image))
    assert result.output_stem == Path("field")
    assert result.seconds > 0
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["image"]["width"] == 400 and document["image"]["height"] == 300
    assert document["counts"]["leukocyte"] == 2
    assert sum(document["counts"].values()) == len(document["cells"])
    assert {cell["kind"] for cell in document["cells"]} <= set(KINDS)
    assert document["cell_diameter_px"] == pytest.approx(40, rel=0.12)
    assert document["standardization"]["unevenness"] >= 1
    provenance = document["provenance"]
    assert provenance["leukokit"] == __version__
    assert provenance["device"] == "cpu"
    assert provenance["detector"]["name"] == "yolo"
    assert len(provenance["detector"]["weights_sha256"]) == 64


def test_standardisation_can_be_left_out(image: Path) -> None:
    plain = Pipeline(PipelineConfig(standardize=False), "cpu")
    smear = plain.read(image)
    assert smear.standardization is None
    assert plain.provenance["standardize"] is False
    assert Pipeline(device="cpu").read(image).standardization is not None


class Wrong(Detector):
    """Breaks the contract as its parameter says."""

    name, version, summary = "wrong", "1", "answers too much or the wrong thing"
    answer: ClassVar[list[object]] = []

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        return self.answer  # type: ignore[return-value]  # that is the point


@pytest.mark.parametrize("answer", [[], [Cells.empty(), Cells.empty()], [None], [[1, 2]]])
def test_detector_that_breaks_its_contract_is_named(
    monkeypatch: pytest.MonkeyPatch, image: Path, answer: list[object]
) -> None:
    monkeypatch.setattr(detectors, "_registered", {"wrong": Wrong})
    monkeypatch.setattr(Wrong, "answer", answer)
    with pytest.raises(PluginError, match="'wrong'"):
        Pipeline(PipelineConfig(detector=PluginChoice(name="wrong")), "cpu").run(image)


def test_a_plugin_that_would_end_the_process_is_named(monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    monkeypatch.setattr(detectors, "_registered", {"wrong": Wrong})
    monkeypatch.setattr(Wrong, "detect", lambda self, smears: sys.exit(3))
    with pytest.raises(PluginError, match=r"'wrong' failed \(SystemExit: 3\)"):
        Pipeline(PipelineConfig(detector=PluginChoice(name="wrong")), "cpu").run(image)


class Breaking(GraphBuilder):
    """Links nothing: it fails."""

    name, version, summary = "breaking", "1", "fails"

    def build(self, cells: Cells) -> CellGraph:
        raise ValueError("no links today")

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        raise NotImplementedError


def test_a_graph_builder_that_fails_is_named_with_the_image(
    monkeypatch: pytest.MonkeyPatch, image: Path
) -> None:
    monkeypatch.setattr(graph_builders, "_registered", {"breaking": Breaking})
    pipeline = Pipeline(PipelineConfig(graph=PluginChoice(name="breaking")), "cpu")
    (answer,) = pipeline.look([pipeline.read(image)])
    assert isinstance(answer, LeukokitError)
    assert re.search(
        r"field\.png: graph builder 'breaking' failed \(ValueError: no links today\)", str(answer)
    )


def test_a_plugin_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Detector, params: object, device: str) -> None:
        raise ImportError("no module named 'somewhere'")

    monkeypatch.setattr(detectors, "_registered", {"wrong": Wrong})
    monkeypatch.setattr(Wrong, "__init__", broken)
    with pytest.raises(PluginError, match=r"detector 'wrong' cannot be started .*no module named"):
        Pipeline(PipelineConfig(detector=PluginChoice(name="wrong")), "cpu")


@pytest.mark.parametrize(
    ("classifier", "graph", "told"),
    [
        ("hybrid", {"name": "knn"}, False),
        ("hybrid", {"name": "knn", "params": {"k": 6}}, False),
        ("hybrid", {"name": "knn", "params": {"k": 3}}, True),
        ("hybrid", {"name": "radius"}, True),
        ("altarawneh", {"name": "delaunay"}, True),
        ("cnn", {"name": "radius"}, False),
    ],
)
def test_links_that_a_classifier_did_not_learn_on_are_told(
    image: Path, classifier: str, graph: dict[str, Any], told: bool
) -> None:
    choice = PluginChoice(name=classifier)
    config = PipelineConfig(graph=PluginChoice.model_validate(graph), classifier=choice)
    notes = Pipeline(config, "cpu").run(image).notes
    assert any("was trained on graphs of 'knn'" in note for note in notes) == told


def test_a_builder_that_takes_other_parameters_than_the_card_names_is_another(pipeline: Pipeline) -> None:
    classifier = pipeline.classifier
    assert classifier is not None
    with pytest.MonkeyPatch.context() as patch:
        learnt = PluginChoice(name="knn", params={"neighbours": 5})
        patch.setattr(type(classifier), "trained_graph", property(lambda self: learnt))
        (note,) = Pipeline(device="cpu")._advice
    assert "'knn' with neighbours=5" in note


def test_an_empty_grey_field_has_no_classes_to_doubt(pipeline: Pipeline) -> None:
    assert not pipeline.run(Smear.from_array(np.full((60, 80, 3), 245, np.uint8))).notes


def test_classes_in_a_grey_picture_are_called_unreliable(pipeline: Pipeline, image: Path) -> None:
    coloured = read_image(image)
    grey = np.repeat(coloured.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert not pipeline.run(Smear.from_array(coloured)).notes
    assert any("grey picture" in note for note in pipeline.run(Smear.from_array(grey)).notes)


def test_faults_of_a_configuration_show_before_the_first_image() -> None:
    with pytest.raises(PluginError, match="yolo"):
        Pipeline(PipelineConfig(detector=PluginChoice(name="yoloo")), "cpu")
    with pytest.raises(ConfigError, match="confidence"):
        Pipeline(PipelineConfig(detector=PluginChoice(name="yolo", params={"confidence": "high"})), "cpu")
    with pytest.raises(ConfigError, match="device"):
        Pipeline(device="tpu")


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x", "cuda:-1", "cuda:999", "CPU"])
def test_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve_device(device)
    assert "--device" in str(error.value) and "\n" not in str(error.value)


def test_auto_is_made_definite() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda:0")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_counts_and_names_as_a_cpu_does(image: Path) -> None:
    here, there = (Pipeline(device=device).run(image).cells for device in ("cpu", "cuda"))
    assert here.kinds.tolist() == there.kinds.tolist()
    assert there.boxes == pytest.approx(here.boxes, abs=0.01)
    assert there.labelling is not None and here.labelling is not None
    assert there.labelling.probabilities == pytest.approx(here.labelling.probabilities, abs=1e-3)
