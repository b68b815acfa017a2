"""What all builders share: which cells are linked, in which unit, and what their answer looks like."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from leukokit.cells import Cells
from leukokit.graph import CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.registry import graph_builders
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE

BUILT_IN = ["delaunay", "knn", "radius"]


class Chain(GraphBuilder):
    """Each with the next, said twice and in both directions."""

    name, version, summary = "chain", "1", "each with the next"
    seen: tuple[npt.NDArray[np.float64], float]

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        self.seen = points, unit
        here, there = np.arange(len(points) - 1), np.arange(1, len(points))
        return np.stack([np.append(there, here), np.append(here, there)])


def built(builder: type[GraphBuilder], cells: Cells, **values: Any) -> CellGraph:
    return builder(builder.parse(values)).build(cells)


def field(count: int, seed: int = 0) -> Cells:
    rng = np.random.default_rng(seed)
    corner, side = rng.random((count, 2)) * 400, rng.uniform(30, 50, (count, 2))
    kinds = rng.choice([LEUKOCYTE, ERYTHROCYTE], count, p=[0.3, 0.7])
    return Cells(np.hstack([corner, corner + side]), kinds, rng.random(count, np.float32), ("note",))


CELLS = Cells(
    np.array([[0, 0, 10, 10], [0, 20, 20, 40], [50, 50, 60, 60], [5, 5, 25, 25], [80, 0, 90, 10]]),
    np.array([ERYTHROCYTE, LEUKOCYTE, ERYTHROCYTE, LEUKOCYTE, ERYTHROCYTE]),
    np.ones(5, np.float32),
)


def test_answers_are_put_in_order() -> None:
    graph = built(Chain, CELLS)
    assert graph.edges.T.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert graph.cells is CELLS
    assert (graph.builder, graph.params) == ("chain", {"nodes": "all", "unit": "diameters"})


def test_leukocytes_only_leaves_the_others_unlinked() -> None:
    builder = Chain(Chain.parse({"nodes": "leukocytes"}))
    graph = builder.build(CELLS)
    assert graph.edges.T.tolist() == [[1, 3]]
    assert len(graph) == 5
    points, unit = builder.seen
    assert points.tolist() == [[10, 30], [15, 15]] and points.dtype == np.float64
    # The ruler is the whole field's.
    assert unit == 10


def test_a_distance_of_one_is_the_smears_own_ruler_or_a_pixel() -> None:
    for values, unit in (({}, 10), ({"unit": "px"}, 1)):
        builder = Chain(Chain.parse(values))
        builder.build(CELLS)
        assert builder.seen[1] == unit
    builder = Chain()
    builder.build(CELLS[CELLS.kinds == LEUKOCYTE])
    assert builder.seen[1] == pytest.approx(20 / 1.95)
    builder.build(Cells(np.zeros((2, 4), np.float32), np.zeros(2, int), np.ones(2, np.float32)))
    assert builder.seen[1] == 1


def test_fewer_than_two_are_not_asked_for() -> None:
    for cells in (Cells.empty(("blank",)), CELLS[:1]):
        builder = Chain()
        assert builder.build(cells).edges.shape == (2, 0)
        assert not hasattr(builder, "seen")


@pytest.mark.parametrize("pairs", [[[0], [0]], [[0], [5]], [[-1], [2]], [[0, 1]], [[0, 1], [1, 2], [2, 3]]])
def test_an_answer_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, pairs: Any) -> None:
    monkeypatch.setattr(Chain, "pairs", lambda *_: np.array(pairs))
    with pytest.raises(ValueError, match=r"pairs must|cannot be linked to itself"):
        built(Chain, CELLS)


def test_they_are_installed() -> None:
    assert set(BUILT_IN) <= set(graph_builders.names())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_builder_on_every_small_field(name: str) -> None:
    builder = graph_builders.get(name)
    for count in range(9):
        cells = field(count, count)
        for values in ({}, {"nodes": "leukocytes"}, {"unit": "px"}):
            graph = built(builder, cells, **values)
            again = built(builder, cells, **values)
            np.testing.assert_array_equal(graph.edges, again.edges)
            assert len(graph) == count and graph.cells.notes == ("note",)
            assert graph.builder == name
            assert builder.parse(graph.params).model_dump() == builder.parse(values).model_dump()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_crowded_field_of_the_benchmark_in_reasonable_time(name: str) -> None:
    import time

    cells = field(20_000)
    places = np.random.default_rng(3).random((20_000, 2)) * 12_000
    boxes = (cells.boxes + np.repeat(places, 2, 0).reshape(-1, 4)).astype(np.float32)
    builder = graph_builders.get(name)()
    builder.build(cells[:10])
    started = time.perf_counter()
    graph = builder.build(Cells(boxes, cells.kinds, cells.scores))
    # Some fifty times what it takes: whatever visits all pairs takes longer.
    assert time.perf_counter() - started < 8
    assert graph.degrees.mean() > 2
