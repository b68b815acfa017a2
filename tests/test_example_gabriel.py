"""examples/gabriel_graph.py: its links are those of the definition; cells may coincide or lie in a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leukokit.cells import Cells
from leukokit.graph import CellGraph
from leukokit.registry import isolated, load_plugin_file
from leukokit.testing import run_checks

EXAMPLE = Path(__file__).parents[1] / "examples" / "gabriel_graph.py"


@pytest.fixture(scope="module")
def builder() -> Iterator[type[Any]]:
    """The example's class; the registry forgets it afterwards."""
    with isolated():
        (plugin,) = load_plugin_file(EXAMPLE)
        yield plugin


def graph_of(builder: type[Any], points: Any, **values: Any) -> CellGraph:
    middle = np.asarray(points, np.float64).reshape(-1, 2)
    boxes = np.hstack([middle - 5, middle + 5]).astype(np.float32)
    cells = Cells(boxes, np.ones(len(boxes), int), np.ones(len(boxes), np.float32))
    return builder(builder.parse({"max_distance": None, **values})).build(cells)


def links_of(builder: type[Any], points: Any, **values: Any) -> list[list[int]]:
    return graph_of(builder, points, **values).edges.T.tolist()


def by_definition(points: list[tuple[int, int]]) -> list[list[int]]:
    """Links of distinct points, in whole numbers: nobody sees the two at a right angle or more."""

    def seen_from(k: int, i: int, j: int) -> int:
        (a, b), (c, d), (x, y) = points[i], points[j], points[k]
        return (a - x) * (c - x) + (b - y) * (d - y)

    everyone = range(len(points))
    return [
        [i, j]
        for i in everyone
        for j in everyone[i + 1 :]
        if all(seen_from(k, i, j) > 0 for k in everyone if k not in (i, j))
    ]


LATTICE = [(x, y) for x in (0, 10, 20) for y in (0, 10, 20)]


def spread(largest: int, most: int, unique: bool = True) -> st.SearchStrategy[list[tuple[int, int]]]:
    places = st.integers(0, largest)
    return st.lists(st.tuples(places, places), min_size=1, max_size=most, unique=unique)


@settings(deadline=None, max_examples=200)
@given(st.one_of(spread(300, 25), spread(6, 20)))
@example(LATTICE)
@example([(0, 0), (10, 0), (20, 0), (10, 1)])
@example([(3 * n, 2 * n) for n in (4, 0, 3, 1)])
def test_links_are_those_of_the_definition(builder: type[Any], points: list[tuple[int, int]]) -> None:
    assert links_of(builder, points) == by_definition(points)


@settings(deadline=None, max_examples=60)
@given(spread(4, 25, unique=False))
def test_cells_on_one_spot_hang_together_and_count_as_one(
    builder: type[Any], points: list[tuple[int, int]]
) -> None:
    graph = graph_of(builder, points).to_networkx()
    assert nx.is_connected(graph)
    spots = sorted(set(points))
    across = sorted({tuple(sorted((spots.index(points[i]), spots.index(points[j])))) for i, j in graph.edges})
    assert [list(link) for link in across if link[0] != link[1]] == by_definition(spots)
    inside = graph.edge_subgraph([(i, j) for i, j in graph.edges if points[i] == points[j]])
    assert len(inside.edges) == len(points) - len(spots)


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ([], []),
        ([[1, 1]], []),
        ([[5, 5]] * 4, [[0, 1], [1, 2], [2, 3]]),
        # A right angle sees the long side: the third cell is on its circle.
        ([[0, 0], [9, 0], [0, 9]], [[0, 1], [0, 2]]),
        ([[0, 0], [9, 0], [4, 8]], [[0, 1], [0, 2], [1, 2]]),
        # A square has no diagonal, whichever of them Qhull took.
        ([[0, 0], [10, 0], [10, 10], [0, 10]], [[0, 1], [0, 3], [1, 2], [2, 3]]),
        ([[20, 20], [0, 0], [30, 30], [10, 10]], [[0, 2], [0, 3], [1, 3]]),
    ],
)
def test_by_hand(builder: type[Any], points: list[list[float]], wanted: list[list[int]]) -> None:
    assert links_of(builder, points) == wanted


def test_longer_links_than_wanted_are_left_out(builder: type[Any]) -> None:
    points = [[0, 0], [30, 0], [100, 0]]
    assert links_of(builder, points) == [[0, 1], [1, 2]]
    assert links_of(builder, points, max_distance=4) == [[0, 1]]
    assert links_of(builder, points, max_distance=29, unit="px") == []


def test_it_keeps_the_contract(builder: type[Any]) -> None:
    assert [outcome.message for outcome in run_checks(builder).outcomes if not outcome.passed] == []
