"""From a file to a result: what is recorded, what is refused, one image at a time."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from leukokit import __version__
from leukokit.cells import Cells
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.data.synth import draw_smear, save_smear
from leukokit.detectors.base import Detector
from leukokit.errors import ConfigError, ImageError, PluginError
from leukokit.pipeline import Pipeline, resolve_device
from leukokit.registry import detectors
from leukokit.smear import Smear
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


def test_images_are_read_one_by_one(pipeline: Pipeline, image: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.png"
    results = pipeline.run_all([image, later, tmp_path / "none.png"])
    assert isinstance(results, Iterator)
    first = next(results)
    shutil.copy(image, later)
    second = next(results)
    assert np.array_equal(first.cells.boxes, second.cells.boxes)
    assert first.smear.sha256 == second.smear.sha256
    with pytest.raises(ImageError, match=r"none\.png"):
        next(results)


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
