"""The shipped graphs: of the shipped weights, made by the committed command, and with torch's answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from leukokit import weights
from leukokit.classifiers.altarawneh import AltarawnehClassifier
from leukokit.classifiers.cnn import CnnClassifier
from leukokit.classifiers.networks.modules import write_context_graph, write_crop_graph
from leukokit.detectors.yolo.torch_network import write_detector_graph
from leukokit.engines.choose import load
from leukokit.engines.export import read_safetensors_header
from leukokit.engines.openvino import OpenVinoEngine
from leukokit.engines.torch import TorchEngine
from leukokit.export.targets import classifier_targets, detector_targets

SHIPPED = weights.shipped()
WRITERS: dict[str, Any] = {
    "smear-yolo11n": write_detector_graph,
    "leukocyte-cnn": lambda path: write_crop_graph(CnnClassifier, path),
    "leukocyte-altarawneh": lambda path: write_crop_graph(AltarawnehClassifier, path),
    "leukocyte-hybrid": write_context_graph,
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_graph_and_weights_hold_the_same_tensors(path: Path) -> None:
    header, start = read_safetensors_header(path)
    graph = onnx.load(path.with_suffix(".onnx"), load_external_data=False).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    # Tensors of equal values are kept once.
    assert set(held) <= set(header) and len(held) > 0.95 * len(header)
    for name, tensor in held.items():
        place = {entry.key: entry.value for entry in tensor.external_data}
        first, end = header[name]["data_offsets"]
        assert list(tensor.dims) == header[name]["shape"]
        assert place == {"location": path.name, "offset": str(start + first), "length": str(end - first)}
    assert path.with_suffix(".onnx").stat().st_size < 300_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_graph_is_the_cards_and_can_be_made_again(path: Path, tmp_path: Path) -> None:
    card = weights.read_card(path, weights.card_model(path.with_suffix(".json")))
    assert card.onnx_sha256 == weights.sha256_of(path.with_suffix(".onnx"))
    copied = Path(shutil.copy(path, tmp_path))
    shutil.copy(path.with_suffix(".json"), tmp_path)
    WRITERS[path.stem](copied)
    ours, made = (onnx.load(where.with_suffix(".onnx"), load_external_data=False) for where in (path, copied))
    # Another release of torch may number nodes otherwise.
    for model in (ours, made):
        model.producer_version = ""
    assert [node.op_type for node in made.graph.node] == [node.op_type for node in ours.graph.node]


@pytest.mark.parametrize("engine", [None, OpenVinoEngine], ids=["auto", "openvino"])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_outputs_are_those_of_torch(path: Path, engine: Any) -> None:
    if engine is OpenVinoEngine:
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    if path.stem == "smear-yolo11n":
        from leukokit.detectors.yolo.loading import model_of

        targets = detector_targets(path, trust_pickle=False)
        model = model_of(path, weights.read_card(path, weights.DetectorCard))
    else:
        name = path.stem.removeprefix("leukocyte-")
        targets = classifier_targets(name, path)[-1:]
        from leukokit.registry import classifiers

        plugin: Any = classifiers.get(name)
        model = plugin(plugin.parse({"weights": str(path)})).model
    by_torch, by_engine = load(model, TorchEngine), load(model, engine)
    for sample in targets[0].samples:
        expected, found = by_torch(sample), by_engine(sample)
        for output, values in expected.items():
            assert (np.abs(found[output] - values) <= 1e-4 * (1 + np.abs(values))).all(), output
