"""Cell graphs are checked when made, measured in erythrocyte diameters, and survive conversion."""

from __future__ import annotations

import io
import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import Cells, Labelling
from leukokit.graph import EDGE_FEATURES, NODE_FEATURES, CellGraph, canonical_edges
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE, PLATELET

# An erythrocyte is 10 px wide here: three of them are the ruler.
BOXES = np.array(
    [[0, 0, 10, 10], [30, 0, 40, 10], [30, 40, 40, 50], [65, 35, 85, 55], [200, 200, 208, 202]], np.float32
)
KIND = np.array([ERYTHROCYTE, ERYTHROCYTE, ERYTHROCYTE, LEUKOCYTE, PLATELET])
FIVE = Cells(BOXES, KIND, np.array([0.5, 0.6, 0.7, 0.8, 0.9]), ("one <&> 'note'", "zwei\n\x00"))
EDGES = np.array([[0, 0, 1, 2], [1, 2, 2, 3]])
GRAPH = CellGraph(FIVE, EDGES, "knn", {"k": 2, "max_distance": None, "nested": {"a": [1, 0.1, "<x>"]}})


def assert_same(found: CellGraph, wanted: CellGraph) -> None:
    for name in ("boxes", "kinds", "scores"):
        a, b = getattr(found.cells, name), getattr(wanted.cells, name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert (found.cells.labelling is None) == (wanted.cells.labelling is None)
    if found.cells.labelling is not None and wanted.cells.labelling is not None:
        np.testing.assert_array_equal(
            found.cells.labelling.probabilities, wanted.cells.labelling.probabilities
        )
        assert found.cells.labelling.classes == wanted.cells.labelling.classes
        assert found.cells.labelling.review_threshold == wanted.cells.labelling.review_threshold
    np.testing.assert_array_equal(found.edges, wanted.edges)
    assert found.cells.notes == wanted.cells.notes
    assert (found.builder, found.params) == (wanted.builder, wanted.params)


@st.composite
def some_graphs(draw: st.DrawFn) -> CellGraph:
    side, place = st.floats(0, 300, width=32), st.floats(-100, 5000, width=32)
    row = st.tuples(place, place, side, side, st.sampled_from(range(3)), st.floats(0, 1, width=32))
    rows = draw(st.lists(row, max_size=7))
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _, _ in rows], np.float32).reshape(-1, 4)
    cells = Cells(boxes, np.array([r[4] for r in rows], int), np.array([r[5] for r in rows]))
    notes = tuple(draw(st.lists(st.text(max_size=6), max_size=2)))
    labelling = None
    if draw(st.booleans()):
        shares = [draw(st.floats(0, 1, width=32)) for _ in rows]
        probabilities = np.array([[p, 1 - p] for p in shares], np.float32).reshape(-1, 2)
        probabilities[cells.kinds != LEUKOCYTE] = 0
        labelling = Labelling(probabilities, ("neutrophil", "immature <granulocyte>"), 0.7)
    cells = Cells(cells.boxes, cells.kinds, cells.scores, notes, labelling)
    possible = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows))]
    chosen = draw(st.lists(st.sampled_from(possible), unique=True)) if possible else []
    edges = np.array(sorted(chosen), np.int64).reshape(-1, 2).T
    builder = draw(st.sampled_from(["", "knn", "eigen <&> 'Bau'", "ß"]))
    values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    params = draw(st.dictionaries(st.text(max_size=4), values | st.text(max_size=4), max_size=3))
    return CellGraph(cells, edges, builder, params)


@pytest.mark.parametrize(
    ("edges", "complaint"),
    [
        (np.zeros(0, int), "shape"),
        (np.array([[0, 1]]), "shape"),
        (np.array([[0, 1], [1, 2], [2, 3]]), "shape"),
        (np.array([[0.0], [1.0]]), "whole"),
        (np.array([[True], [False]]), "whole"),
        (np.array([[-1], [1]]), "from 0 to 4"),
        (np.array([[0], [5]]), "from 0 to 4"),
        (np.array([[2], [1]]), "lower to the higher"),
        (np.array([[1], [1]]), "none to itself"),
        (np.array([[1, 0], [2, 1]]), "sorted"),
        (np.array([[0, 0], [2, 1]]), "sorted"),
        (np.array([[0, 0], [1, 1]]), "without repeats"),
    ],
)
def test_wrong_edges_are_refused(edges: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CellGraph(FIVE, edges)


@pytest.mark.parametrize("params", [{"a": {1, 2}}, {"a": math.nan}, {"a": (1,)}, {1: 2}, {"a": np.ones(2)}])
def test_parameters_that_json_would_change_are_refused(params: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        CellGraph(FIVE, EDGES, "knn", params)


@pytest.mark.parametrize("name", ["a\nb", "\x00", "\ud800"])
def test_a_name_that_xml_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        CellGraph(FIVE, EDGES, name)


def test_measured_by_hand() -> None:
    assert len(GRAPH) == 5
    assert GRAPH.edges.dtype == np.int64
    np.testing.assert_allclose(GRAPH.lengths_px, [30, 50, 40, 40])
    np.testing.assert_allclose(GRAPH.lengths, [3, 5, 4, 4])
    assert GRAPH.lengths_px.dtype == GRAPH.lengths.dtype == np.float32
    assert GRAPH.degrees.tolist() == [2, 2, 3, 1, 0]
    assert GRAPH.degrees.dtype == np.int64


def test_node_features_by_hand() -> None:
    table = dict(zip(NODE_FEATURES, GRAPH.node_features.T, strict=True))
    assert GRAPH.node_features.dtype == np.float32
    assert table["leukocyte"].tolist() == [0, 0, 0, 1, 0]
    assert table["erythrocyte"].tolist() == [1, 1, 1, 0, 0]
    assert table["platelet"].tolist() == [0, 0, 0, 0, 1]
    np.testing.assert_allclose(table["score"], [0.5, 0.6, 0.7, 0.8, 0.9])
    np.testing.assert_allclose(table["diameter"], [1, 1, 1, 2, 0.4])
    np.testing.assert_allclose(table["log_aspect"], [0, 0, 0, 0, math.log(4)], rtol=1e-6)
    assert table["degree"].tolist() == [2, 2, 3, 1, 0]
    np.testing.assert_allclose(table["mean_edge_length"], [4, 3.5, 13 / 3, 4, 0], rtol=1e-6)


def test_edge_features_by_hand() -> None:
    table = dict(zip(EDGE_FEATURES, GRAPH.edge_features.T, strict=True))
    assert GRAPH.edge_features.dtype == np.float32
    np.testing.assert_allclose(table["length"], [3, 5, 4, 4])
    np.testing.assert_allclose(table["log_diameter_ratio"], [0, 0, 0, math.log(2)], rtol=1e-6)


def test_without_any_size_nothing_is_measured_in_diameters() -> None:
    points = np.array([[0, 0, 0, 0], [3, 4, 3, 4]], np.float32)
    graph = CellGraph(Cells(points, np.array([0, 1]), np.ones(2, np.float32)), np.array([[0], [1]]))
    assert graph.lengths_px.tolist() == [5]
    assert graph.lengths.tolist() == [0]
    assert np.isfinite(graph.node_features).all() and np.isfinite(graph.edge_features).all()
    assert not graph.node_features[:, NODE_FEATURES.index("diameter")].any()


def test_no_cell_and_no_edge() -> None:
    for graph in (CellGraph.unlinked(Cells.empty(("blank",))), CellGraph.unlinked(FIVE)):
        count = len(graph.cells)
        assert graph.edges.shape == (2, 0) and graph.edges.dtype == np.int64
        assert graph.node_features.shape == (count, len(NODE_FEATURES))
        assert graph.edge_features.shape == (0, len(EDGE_FEATURES))
        assert graph.lengths_px.shape == graph.lengths.shape == (0,)
        assert graph.degrees.tolist() == [0] * count
        assert_same(CellGraph.from_networkx(graph.to_networkx()), graph)
        data = graph.to_pyg()
        assert data.num_nodes == count and data.edge_index.shape == (2, 0)


@settings(deadline=None, max_examples=60)
@given(some_graphs())
def test_networkx_and_its_files_and_back(graph: CellGraph) -> None:
    linked = graph.to_networkx()
    assert linked.number_of_nodes() == len(graph)
    assert [linked.degree[number] for number in range(len(graph))] == graph.degrees.tolist()
    assert_same(CellGraph.from_networkx(linked), graph)
    stream = io.BytesIO()
    nx.write_graphml_xml(linked, stream)
    stream.seek(0)
    assert_same(CellGraph.from_networkx(nx.read_graphml(stream)), graph)
    assert_same(
        CellGraph.from_networkx(nx.node_link_graph(nx.node_link_data(linked, edges="e"), edges="e")), graph
    )
    # Another order of the nodes is the same graph.
    turned = nx.Graph(**linked.graph)
    turned.add_nodes_from(reversed(list(linked.nodes(data=True))))
    turned.add_edges_from((j, i) for i, j in linked.edges())
    assert_same(CellGraph.from_networkx(turned), graph)


@settings(deadline=None, max_examples=40)
@given(some_graphs())
def test_features_are_finite_and_whole(graph: CellGraph) -> None:
    nodes, edges = graph.node_features, graph.edge_features
    assert nodes.shape == (len(graph), len(NODE_FEATURES)) and np.isfinite(nodes).all()
    assert edges.shape == (graph.edges.shape[1], len(EDGE_FEATURES)) and np.isfinite(edges).all()
    points = graph.cells.centres
    for (i, j), length in zip(graph.edges.T, graph.lengths_px, strict=True):
        assert length == pytest.approx(math.dist(points[i], points[j]), rel=1e-6)


def test_labels_are_attributes_that_people_read() -> None:
    probabilities = np.zeros((5, 2), np.float32)
    probabilities[3] = [0.25, 0.75]
    labelled = FIVE.with_labelling(Labelling(probabilities, ("neutrophil", "monocyte"), 0.9))
    nodes = CellGraph(labelled, EDGES).to_networkx().nodes
    assert (nodes[3]["label"], nodes[3]["review"]) == ("unclassified", True)
    assert (nodes[3]["p_neutrophil"], nodes[3]["p_monocyte"]) == (0.25, 0.75)
    assert (nodes[0]["label"], nodes[0]["review"]) == ("", False)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda g: nx.relabel_nodes(g, {0: 7}), "numbered from 0 to 4"),
        (lambda g: nx.relabel_nodes(g, {0: "a"}), "invalid literal"),
        (lambda g: nx.relabel_nodes(g, {0: 0.5}), "invalid literal"),
        (lambda g: g.nodes[1].pop("score"), "'score'"),
        (lambda g: g.nodes[1].update(kind="wbc"), "not in tuple"),
        (lambda g: g.nodes[1].update(score=2.0), "between 0 and 1"),
        (lambda g: g.add_edge(2, 2), "itself"),
        (lambda g: g.graph.update(params="{"), "Expecting"),
        (lambda g: g.graph.update(classes='["a"]'), "'p_a'"),
    ],
)
def test_a_graph_of_something_else_is_refused(change: Any, complaint: str) -> None:
    linked = GRAPH.to_networkx()
    changed = change(linked)
    with pytest.raises(ValueError, match=complaint):
        CellGraph.from_networkx(changed if isinstance(changed, nx.Graph) else linked)


def test_pyg_holds_everything_twice_directed() -> None:
    from torch_geometric.utils import is_undirected

    data = GRAPH.to_pyg()
    data.validate(raise_on_error=True)
    assert is_undirected(data.edge_index) and not data.has_self_loops()
    assert data.edge_index.tolist() == [[0, 0, 1, 2, 1, 2, 2, 3], [1, 2, 2, 3, 0, 0, 1, 2]]
    forth, back = data.edge_attr[:4], data.edge_attr[4:]
    np.testing.assert_array_equal(forth, GRAPH.edge_features)
    assert torch.equal(back[:, 0], forth[:, 0]) and torch.equal(back[:, 1], -forth[:, 1])
    assert back[3, 1] < 0
    np.testing.assert_array_equal(data.x, GRAPH.node_features)
    assert data.pos.tolist() == [[5, 5], [35, 5], [35, 45], [75, 45], [204, 201]]
    assert [data.x.dtype, data.edge_attr.dtype, data.pos.dtype] == [torch.float32] * 3
    assert data.edge_index.dtype == data.kinds.dtype == torch.int64
    np.testing.assert_array_equal(data.boxes, FIVE.boxes)
    np.testing.assert_array_equal(data.scores, FIVE.scores)
    data.boxes[:] = -1  # its arrays are its own
    assert FIVE.boxes[0, 2] == 10


def test_pyg_graphs_of_several_smears_batch() -> None:
    from torch_geometric.data import Batch

    other = CellGraph(FIVE[:2], np.array([[0], [1]]), "radius", {"radius": 3.0})
    batch = Batch.from_data_list([GRAPH.to_pyg(), CellGraph.unlinked(Cells.empty()).to_pyg(), other.to_pyg()])
    assert batch.num_graphs == 3 and batch.num_nodes == 7
    assert batch.edge_index[:, -1].tolist() == [6, 5]
    assert batch.builder == ["knn", "", "radius"]
    assert batch[2].params == '{"radius": 3.0}'


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda p: p[0] != p[1])))
def test_canonical_is_what_a_set_would_give(pairs: list[tuple[int, int]]) -> None:
    found = canonical_edges(np.array(pairs, np.int64).reshape(-1, 2).T, 7)
    assert found.T.tolist() == sorted([min(p), max(p)] for p in {frozenset(pair) for pair in pairs})


@pytest.mark.parametrize("pairs", [[[0], [7]], [[-1], [2]], [[3], [3]], [[0, 1]], [[0], [1], [2]]])
def test_canonical_refuses(pairs: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"pairs must|cannot be linked to itself"):
        canonical_edges(np.array(pairs), 7)
