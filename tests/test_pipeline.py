"""From a file to a result: what is recorded, what is refused, one image at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import re
import select
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from leukokit import __version__
from leukokit._devices import resolve_device
from leukokit.cells import Cells
from leukokit.classifiers.base import Classifier
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.detectors.base import Detector
from leukokit.errors import ConfigError, ImageError, LeukokitError, PluginError
from leukokit.graph import CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.pipeline import Pipeline
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
    assert document["erythrocyte_diameter_px"] == pytest.approx(40, rel=0.12)
    assert document["standardization"]["unevenness"] >= 1
    provenance = document["provenance"]
    assert provenance["leukokit"] == __version__
    assert provenance["device"] == "cpu"
    assert provenance["detector"]["name"] == "yolo"
    assert len(provenance["detector"]["weights"]["smear-yolo11n"]) == 64


def test_standardisation_can_be_left_out(image: Path) -> None:
    plain = Pipeline.from_config(PipelineConfig(standardize=False), "cpu")
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
    detectors.register(Wrong)
    monkeypatch.setattr(Wrong, "answer", answer)
    with pytest.raises(PluginError, match="'wrong'"):
        Pipeline.from_config(PipelineConfig(detector=PluginChoice(name="wrong")), "cpu").run(image)


def test_a_plugin_that_would_end_the_process_is_named(monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    detectors.register(Wrong)
    monkeypatch.setattr(Wrong, "detect", lambda self, smears: sys.exit(3))
    with pytest.raises(PluginError, match=r"'wrong' failed \(SystemExit: 3\)"):
        Pipeline.from_config(PipelineConfig(detector=PluginChoice(name="wrong")), "cpu").run(image)


class Breaking(GraphBuilder):
    """Links nothing: it fails."""

    name, version, summary = "breaking", "1", "fails"

    def build(self, cells: Cells) -> CellGraph:
        raise ValueError("no links today")

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        raise NotImplementedError


def test_a_graph_builder_that_fails_is_named_with_the_image(image: Path) -> None:
    graph_builders.register(Breaking)
    pipeline = Pipeline.from_config(PipelineConfig(graph=PluginChoice(name="breaking")), "cpu")
    (answer,) = pipeline.process([pipeline.read(image)])
    assert isinstance(answer, LeukokitError)
    assert re.search(
        r"field\.png: graph builder 'breaking' failed \(ValueError: no links today\)", str(answer)
    )


def test_a_plugin_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Detector, params: object, device: str) -> None:
        raise ImportError("no module named 'somewhere'")

    detectors.register(Wrong)
    monkeypatch.setattr(Wrong, "__init__", broken)
    with pytest.raises(PluginError, match=r"detector 'wrong' cannot be started .*no module named"):
        Pipeline.from_config(PipelineConfig(detector=PluginChoice(name="wrong")), "cpu")


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
    notes = Pipeline.from_config(config, "cpu").run(image).notes
    assert any("was trained on graphs of 'knn'" in note for note in notes) == told


def test_a_builder_that_takes_other_parameters_than_the_card_names_is_another(
    pipeline: Pipeline, image: Path
) -> None:
    classifier = pipeline.classifier
    assert classifier is not None
    with pytest.MonkeyPatch.context() as patch:
        learnt = PluginChoice(name="knn", params={"neighbours": 5})
        patch.setattr(type(classifier), "trained_graph", property(lambda self: learnt))
        (note,) = [note for note in Pipeline(device="cpu").run(image).notes if "trained on" in note]
    assert "'knn' with neighbours=5" in note


def test_an_empty_grey_field_has_no_classes_to_doubt(pipeline: Pipeline) -> None:
    notes = pipeline.run(Smear.from_array(np.full((60, 80, 3), 245, np.uint8))).notes
    assert not any("grey" in note for note in notes)


def test_classes_in_a_grey_picture_are_called_unreliable(pipeline: Pipeline, image: Path) -> None:
    coloured = read_image(image)
    grey = np.repeat(coloured.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert not any("grey" in note for note in pipeline.run(Smear.from_array(coloured)).notes)
    assert any("grey image" in note for note in pipeline.run(Smear.from_array(grey)).notes)


def test_faults_of_a_configuration_show_before_the_first_image() -> None:
    with pytest.raises(PluginError, match="yolo"):
        Pipeline.from_config(PipelineConfig(detector=PluginChoice(name="yoloo")), "cpu")
    with pytest.raises(ConfigError, match="confidence"):
        Pipeline.from_config(
            PipelineConfig(detector=PluginChoice(name="yolo", params={"confidence": "high"})), "cpu"
        )
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


def test_a_pipeline_takes_plugin_objects_and_pickles(image: Path) -> None:
    detector = detectors.get("yolo")(device="cpu")
    pipeline = Pipeline(detector=detector, graph_builder="radius", classifier=None, device="cpu")
    assert pipeline.detector is detector and pipeline.config.graph.name == "radius"
    found = pipeline.run(image).cells
    assert found.labelling is None
    again = pickle.loads(pickle.dumps(pipeline)).run(image)
    assert again.cells.boxes.tolist() == found.boxes.tolist() and again.graph.builder == "radius"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("fresh", [False, True])
def test_a_used_pipeline_works_after_a_fork(pipeline: Pipeline, image: Path, fresh: bool) -> None:
    expected = pipeline.run(image).cells.counts
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            counts = (Pipeline(device="cpu") if fresh else pipeline).run(image).cells.counts
            os.write(theirs, json.dumps(counts).encode())
        os._exit(0)
    os.close(theirs)
    answered = select.select([ours], [], [], 60)[0]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert answered and json.loads(os.read(ours, 1000)) == expected
    os.close(ours)


class Raising(Detector):
    """Raises what it is told to."""

    name, version, summary = "raising", "1", "raises"
    error: ClassVar[type[BaseException]] = Exception

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        raise self.error


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "error", [GeneratorExit, asyncio.CancelledError, KeyboardInterrupt, BaseException, SpeechlessError]
)
def test_whatever_a_plugin_raises_is_its_error(
    monkeypatch: pytest.MonkeyPatch, image: Path, error: type[BaseException]
) -> None:
    monkeypatch.setattr(Raising, "error", error)
    pipeline = Pipeline(detector=Raising(), classifier=None, device="cpu")
    with pytest.raises(PluginError, match=rf"detector 'raising' failed \(.*{error.__name__}"):
        pipeline.run(image)


@pytest.mark.parametrize("path", [["a.png"], 3, None])
def test_what_is_no_path_is_refused(pipeline: Pipeline, path: Any) -> None:
    with pytest.raises(ImageError, match="give a file's path"):
        pipeline.run(path)


@pytest.mark.parametrize(
    "classes",
    [(), ("a", "a"), ("a", "A"), ("a\x1b[31m",), ("\ud800",), ("",), (None,), (np.str_("a"),), ("a" * 101,)],
)
def test_class_names_are_checked_once(monkeypatch: pytest.MonkeyPatch, classes: tuple[Any, ...]) -> None:
    class Named(Classifier):
        name, version, summary = "named", "1", "has classes"

        @property
        def classes(self) -> tuple[str, ...]:
            return classes

        def classify(self, smears: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[Any]:
            return []

    with pytest.raises(PluginError, match="classifier 'named'") as error:
        Pipeline(classifier=Named(), device="cpu")
    assert str(error.value).isprintable()


def test_provenance_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wrong, "provenance", lambda self: {"weights": object()})
    with pytest.raises(PluginError, match="detector 'wrong' has no provenance that JSON can hold"):
        _ = Pipeline(detector=Wrong(), device="cpu").provenance


def test_a_note_that_is_no_text_breaks_the_contract(monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    monkeypatch.setattr(Wrong, "answer", [replace(Cells.empty(), notes=cast("Any", (3,)))])
    with pytest.raises(PluginError, match="must return notes that are text"):
        Pipeline(detector=Wrong(), device="cpu").run(image)


def test_reading_has_a_time_limit(monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    freed = threading.Event()
    monkeypatch.setattr("leukokit.pipeline.read_smear", lambda path: freed.wait(60))
    with pytest.raises(ImageError, match=r"field\.png: took longer than 0\.1 s"):
        Pipeline(time_limit=0.1, device="cpu").read(image)
    freed.set()
