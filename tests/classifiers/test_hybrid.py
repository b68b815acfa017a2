"""The hybrid: its graph network alone, and the classifier with the CNN that its card names."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATv2Conv

from leukokit import weights
from leukokit.cells import Cells
from leukokit.classifiers.hybrid import HybridClassifier
from leukokit.classifiers.networks.backbone import EMBEDDING
from leukokit.classifiers.networks.context import CONTEXT_FEATURES
from leukokit.classifiers.networks.context_network import ContextNetwork
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.classifiers.networks.graph_attention import GraphAttention
from leukokit.classifiers.networks.graph_batch import context_tensors
from leukokit.classifiers.neural import GraphedField
from leukokit.crops.appearance import appearance
from leukokit.errors import WeightsError
from leukokit.graph import CellGraph, canonical_edges
from leukokit.pipeline import Pipeline
from leukokit.registry import graph_builders
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE
from leukokit.weights.files import load_weights, save_weights

SMEAR = Path(__file__).parents[2] / "examples" / "smear.png"
CNN = "leukocyte-cnn"


def network_of(seed: int = 0, layers: int = 2) -> ContextNetwork:
    torch.manual_seed(seed)
    return ContextNetwork(8, layers=layers).eval()


def data_of(rng: np.random.Generator, nodes: int, links: int) -> Data:
    """A field of random figures, without links where there are fewer than two cells."""
    pairs = rng.integers(0, max(nodes, 1), (2, links if nodes > 1 else 0))
    edges = canonical_edges(pairs[:, pairs[0] != pairs[1]], nodes)
    both = torch.from_numpy(np.concatenate([edges, edges[::-1]], axis=1))
    return Data(
        x=torch.from_numpy(rng.normal(0, 1, (nodes, len(CONTEXT_FEATURES))).astype(np.float32)),
        pictures=torch.from_numpy(rng.normal(0, 1, (nodes, EMBEDDING)).astype(np.float32)),
        edge_index=both,
        edge_attr=torch.from_numpy(rng.normal(0, 1, (both.shape[1], 2)).astype(np.float32)),
    )


def chain(nodes: int) -> Data:
    """Every cell linked with the next."""
    data = data_of(np.random.default_rng(nodes), nodes, 0)
    forth = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    data.edge_index = torch.cat([forth, forth.flip(0)], dim=1)
    data.edge_attr = torch.zeros(2 * (nodes - 1), 2)
    return data


@torch.inference_mode()
def answers(network: ContextNetwork, data: Data) -> torch.Tensor:
    found: torch.Tensor = network(data.x, data.pictures, data.edge_index, data.edge_attr)
    return found


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10), st.integers(0, 25))
def test_the_order_of_cells_and_links_does_not_matter(seed: int, nodes: int, links: int) -> None:
    rng = np.random.default_rng(seed)
    network, data = network_of(), data_of(rng, nodes, links)
    order = torch.from_numpy(rng.permutation(nodes))
    shuffled = torch.from_numpy(rng.permutation(data.edge_index.shape[1]))
    other = Data(
        x=data.x[order],
        pictures=data.pictures[order],
        edge_index=torch.argsort(order)[data.edge_index][:, shuffled],
        edge_attr=data.edge_attr[shuffled],
    )
    found = answers(network, data)
    assert found.shape == (nodes, 8) and torch.isfinite(found).all()
    torch.testing.assert_close(answers(network, other), found[order], atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10), st.integers(0, 25), st.floats(0.1, 100))
def test_its_attention_is_torch_geometric_s(seed: int, nodes: int, links: int, size: float) -> None:
    data = data_of(np.random.default_rng(seed), nodes, links)
    torch.manual_seed(seed)
    own: Any = ContextNetwork(8).eval()
    oracle = copy.deepcopy(own)
    oracle.links = nn.ModuleList(
        GATv2Conv(link.lin_l.in_features, link.shape[2], link.shape[1], edge_dim=2, add_self_loops=False)
        for link in own.links
    )
    oracle.load_state_dict(own.state_dict())
    data.edge_attr *= size
    torch.testing.assert_close(answers(own, data), answers(oracle, data), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_its_attention_starts_and_learns_as_torch_geometric_s(seed: int) -> None:
    layers: list[nn.Module] = []
    for make in (GraphAttention, partial(GATv2Conv, add_self_loops=False)):
        torch.manual_seed(seed)
        layers.append(make(16, 8, 4, edge_dim=2))
    own, oracle = layers
    assert own.state_dict().keys() == oracle.state_dict().keys()
    assert all(torch.equal(value, oracle.state_dict()[name]) for name, value in own.state_dict().items())
    nodes, edges, figures = torch.randn(9, 16), torch.randint(0, 9, (2, 30)), torch.randn(30, 2)
    for layer in layers:
        layer(nodes, edges, figures).square().sum().backward()
    for name, value in own.named_parameters():
        expected = dict(oracle.named_parameters())[name].grad
        torch.testing.assert_close(value.grad, expected, atol=1e-4, rtol=1e-4)


def test_naming_does_without_the_import_of_torch_geometric() -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from leukokit.config import PipelineConfig; from leukokit.pipeline import Pipeline;"
        f"assert Pipeline.from_config(PipelineConfig()).run(Path({str(SMEAR)!r})).cells.class_counts;"
        "assert 'torch_geometric' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), min_size=2, max_size=3),
)
def test_fields_side_by_side_know_nothing_of_each_other(seed: int, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(seed)
    network, fields = network_of(), [data_of(rng, nodes, links) for nodes, links in sizes]
    alone = torch.cat([answers(network, data) for data in fields])
    joined = answers(network, Batch.from_data_list(fields))
    torch.testing.assert_close(joined, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("what", ["x", "pictures"])
def test_a_cell_is_told_of_by_as_many_links_as_there_are_layers(layers: int, what: str) -> None:
    network, data = network_of(layers=layers), chain(6)
    before = answers(network, data)
    for changed in range(6):
        other = data.clone()
        other[what][changed] += 1
        moved = (answers(network, other) - before).abs().amax(dim=1) > 1e-6
        assert moved.tolist() == [abs(cell - changed) <= layers for cell in range(6)]


def test_lengths_of_links_count_and_a_cell_without_links_is_judged_by_itself() -> None:
    network, data = network_of(), chain(3)
    longer = data.clone()
    longer.edge_attr += 1
    assert not torch.allclose(answers(network, longer), answers(network, data), atol=1e-6)
    data.edge_index, data.edge_attr = data.edge_index[:, :0], data.edge_attr[:0]
    alone = Data(**{key: data[key][1:2] if len(data[key]) == 3 else data[key] for key in data.keys()})  # noqa: SIM118
    torch.testing.assert_close(answers(network, data)[1:2], answers(network, alone))


def test_features_are_taken_in_their_usual_spread() -> None:
    network, data = network_of(), chain(3)
    before = answers(network, data)
    network.mean += 7
    network.deviation *= 2
    data.x = data.x * 2 + 7
    torch.testing.assert_close(answers(network, data), before, atol=1e-4, rtol=1e-4)
    # One figure far out of the ordinary counts for no more than five deviations.
    data.x[0, 3] = 1e3
    far = answers(network, data)
    data.x[0, 3] = 1e6
    assert torch.equal(answers(network, data), far)


def written(folder: Path, cnn: dict[str, str] | None = None) -> Path:
    """Weights of a hybrid of random weights, with a card; ``cnn`` is what it says of the CNN."""
    path = folder / "mine.safetensors"
    save_weights(network_of(), path)
    shipped = weights.find(CNN)
    card = weights.read_card(shipped, weights.ClassifierCard)
    named = {"name": CNN, "sha256": weights.sha256_of(shipped)} if cnn is None else cnn
    changes = {"name": "mine", "sha256": weights.sha256_of(path), "cnn": named, "temperature": 2.0}
    path.with_suffix(".json").write_text(card.model_copy(update=changes).model_dump_json())
    return path


def classifier_of(path: Path, **params: object) -> HybridClassifier:
    return HybridClassifier(HybridClassifier.parse({"weights": str(path), **params}))


@pytest.fixture(scope="module")
def seen() -> tuple[Smear, CellGraph]:
    pipeline = Pipeline()
    smear = pipeline.read(SMEAR)
    return smear, pipeline.build(pipeline.detect(smear))


def test_the_cells_around_have_a_say(seen: tuple[Smear, CellGraph], tmp_path: Path) -> None:
    classifier, (smear, graph) = classifier_of(written(tmp_path)), seen
    linked, unlinked = classifier.classify([smear, smear], [graph, CellGraph.unlinked(graph.cells)])
    leukocytes = graph.cells.kinds == LEUKOCYTE
    assert leukocytes.any() and not leukocytes.all()
    for answer in (linked, unlinked):
        np.testing.assert_allclose(answer[leukocytes].sum(axis=1), 1, atol=1e-5)
        assert not answer[~leukocytes].any()
    assert np.abs(linked - unlinked)[leukocytes].max() > 1e-3


def test_only_leukocytes_bring_a_picture(seen: tuple[Smear, CellGraph], tmp_path: Path) -> None:
    path, (smear, graph) = written(tmp_path), seen
    classifier = classifier_of(path, views=1, batch=3)
    nodes = np.flatnonzero(graph.cells.kinds == LEUKOCYTE)
    features, edges, figures = context_tensors(graph, appearance(smear, graph.cells))
    data = Data(x=features, edge_index=edges, edge_attr=figures)
    data.pictures = torch.zeros(len(graph), EMBEDDING)
    crops = torch.from_numpy(classifier.crops(GraphedField(smear, graph, nodes), None)).permute(0, 3, 1, 2)
    cnn = CropNetwork(8)
    load_weights(cnn, weights.find(CNN))
    with torch.no_grad():
        data.pictures[torch.from_numpy(nodes)] = cnn.eval().backbone(crops.float() / 255)
    # The file holds half precision.
    network = network_of(seed=1)
    load_weights(network, path)
    expected = torch.softmax(answers(network, data)[nodes] / 2, dim=1)
    (found,) = classifier.classify([smear], [graph])
    np.testing.assert_allclose(found[nodes], expected.numpy(), atol=1e-4)
    averaged = classifier_of(path, views=4).classify([smear], [graph])[0]
    assert np.abs(averaged - found).max() > 1e-4


def test_any_field_is_a_normal_input(tmp_path: Path) -> None:
    classifier = classifier_of(written(tmp_path))
    smear = Smear.from_array(np.full((50, 60, 3), 200, np.uint8))
    boxes = np.array([[0, 0, 60, 50], [10, 10, 10, 10], [-20, -20, 5, 5], [58, 2, 90, 40]])
    odd = graph_builders.get("knn")().build(Cells(boxes, np.zeros(4, int), np.ones(4, np.float32)))
    alone = CellGraph.unlinked(Cells(boxes[:1], np.zeros(1, int), np.ones(1, np.float32)))
    none = CellGraph.unlinked(Cells.empty())
    erythrocytes = CellGraph.unlinked(Cells(boxes, np.ones(4, int), np.ones(4, np.float32)))
    found = classifier.classify([smear] * 4, [odd, alone, none, erythrocytes])
    assert [answer.shape for answer in found] == [(4, 8), (1, 8), (0, 8), (4, 8)]
    np.testing.assert_allclose(np.concatenate(found[:2]).sum(axis=1), 1, atol=1e-5)
    assert not found[3].any()


def test_the_cnn_is_shipped_or_lies_beside(tmp_path: Path) -> None:
    shipped = weights.find(CNN)
    assert classifier_of(written(tmp_path)).cnn_path == shipped
    beside = tmp_path / f"{CNN}.safetensors"
    shutil.copy(shipped, beside)
    assert classifier_of(written(tmp_path)).cnn_path == beside
    beside.rename(tmp_path / "own.safetensors")
    own = {"name": "own", "sha256": weights.sha256_of(shipped)}
    classifier = classifier_of(written(tmp_path, own))
    assert classifier.cnn_path == tmp_path / "own.safetensors"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, "its card names no CNN"),
        ({"sha256": "0" * 64}, r"\(cnn: '' is no name of weights\)"),
        ({"name": CNN}, r"not the CNN that mine\.safetensors was trained on"),
        ({"name": CNN, "sha256": "0" * 64}, r"not the CNN that mine\.safetensors was trained on"),
        ({"name": "gone", "sha256": "0" * 64}, r"mine\.safetensors: needs the CNN 'gone'"),
        ({"name": "a/gone", "sha256": "0" * 64}, "'a/gone' is no name of weights"),
        ({"name": "two\nlines", "sha256": "0" * 64}, r"'two\\nlines' is no name of weights"),
        ({"name": "nothing\0", "sha256": "0" * 64}, r"'nothing\\x00' is no name of weights"),
    ],
)
def test_without_its_cnn_a_hybrid_is_refused(named: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said) as error:
        classifier_of(written(tmp_path, named))
    assert str(error.value).isprintable()


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="names no CNN; these are not weights of 'hybrid'"):
        classifier_of(Path(CNN))
    # A card that was put beside the wrong weights.
    path = written(tmp_path)
    shutil.copy(weights.find(CNN), path)
    with pytest.raises(WeightsError, match="is not the card's"):
        classifier_of(path)
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | {"sha256": weights.sha256_of(path)}))
    with pytest.raises(WeightsError, match="weights of another architecture"):
        _ = classifier_of(path).network
