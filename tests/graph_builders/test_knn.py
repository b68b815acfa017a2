"""The k nearest: against brute force, with ties, stacks of cells and more neighbours than cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leukokit.cells import Cells
from leukokit.errors import ConfigError
from leukokit.graph_builders import knn as knn_module
from leukokit.graph_builders.knn import KnnBuilder


def cells_at(points: Any, side: float = 10.0) -> Cells:
    middle = np.asarray(points, np.float64).reshape(-1, 2)
    boxes = np.hstack([middle - side / 2, middle + side / 2])
    return Cells(boxes.astype(np.float32), np.ones(len(boxes), int), np.ones(len(boxes), np.float32))


def knn(**values: Any) -> KnnBuilder:
    return KnnBuilder(KnnBuilder.parse(values))


def edges_of(points: Any, **values: Any) -> list[list[int]]:
    return knn(**values).build(cells_at(points)).edges.T.tolist()


def by_brute_force(points: npt.NDArray[np.float64], k: int, longest: float | None = None) -> list[list[int]]:
    """Nearest by squared distance, lower numbers first."""
    links = set()
    for i, here in enumerate(points):
        squared = ((points - here) ** 2).sum(axis=1)
        others = sorted((squared[j], j) for j in range(len(points)) if j != i)[:k]
        links |= {frozenset((i, j)) for s, j in others if longest is None or s <= longest**2}
    return sorted(sorted(link) for link in links)


# Whole numbers, so that ties and cells on one spot are common.
@pytest.fixture(scope="module", params=[0, 256], autouse=True)
def all_distances_up_to(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test once by the tree, and once by all distances."""
    before = knn_module._FEW
    knn_module._FEW = request.param
    yield
    knn_module._FEW = before


GRID = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40)


@settings(deadline=None, max_examples=200)
@given(GRID, st.integers(1, 9))
@example([(0, 0)] * 12 + [(1, 0)] * 3, 2)
@example([(0, 0)] * 5 + [(3, 0)] * 5, 4)
@example([(x, y) for x in range(6) for y in range(6)], 6)
def test_against_brute_force_with_ties(points: list[tuple[int, int]], k: int) -> None:
    found = edges_of(points, k=k)
    assert found == by_brute_force(np.array(points, np.float64).reshape(-1, 2), k)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 6, 50, 299, 300, 1000])
def test_against_brute_force_in_a_crowd(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    cells = cells_at(rng.normal(500, 200, (300, 2)))
    points = (cells.boxes[:, :2].astype(np.float64) + cells.boxes[:, 2:]) / 2
    assert knn(k=k).build(cells).edges.T.tolist() == by_brute_force(points, k)


def test_a_large_stack_takes_its_lowest_numbers() -> None:
    points = np.zeros((600, 2))
    points[::3] = [50, 0]
    found = knn(k=3).build(cells_at(points))
    assert found.edges.T.tolist() == by_brute_force(points, 3)


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_to_link(count: int) -> None:
    graph = knn().build(cells_at(np.zeros((count, 2))))
    assert graph.edges.shape == (2, 0) and len(graph) == count


def test_more_neighbours_than_cells_are_all_of_them() -> None:
    assert edges_of([[0, 0], [9, 9]], k=6) == [[0, 1]]
    assert edges_of([[0, 0], [9, 9], [9, 9]], k=2) == [[0, 1], [0, 2], [1, 2]]


def test_a_link_that_one_side_asks_for_is_there() -> None:
    # 2's nearest is 1, whose nearest is 0.
    assert edges_of([[0, 0], [10, 0], [30, 0]], k=1) == [[0, 1], [1, 2]]


def test_the_lower_number_wins_a_tie() -> None:
    assert edges_of([[0, 0], [10, 0], [20, 0], [100, 0], [101, 0]], k=1) == [[0, 1], [1, 2], [3, 4]]
    assert edges_of([[10, 0], [20, 0], [0, 0]], k=1) == [[0, 1], [0, 2]]


def test_longest_link_in_diameters_and_in_pixels() -> None:
    points = [[0, 0], [20, 0], [50, 0]]
    assert edges_of(points, k=2, max_distance=2) == [[0, 1]]
    assert edges_of(points, k=2, max_distance=3) == [[0, 1], [1, 2]]
    assert edges_of(points, k=2, max_distance=30, unit="px") == [[0, 1], [1, 2]]
    assert edges_of(points, k=2, max_distance=19.9, unit="px") == []
    assert edges_of(points, k=1, max_distance=2) == [[0, 1]]


def test_neighbours_beyond_memory_are_refused() -> None:
    many = cells_at(np.random.default_rng(0).random((30_000, 2)) * 1e5)
    with pytest.raises(ConfigError, match=r"'knn'.*fewer neighbours"):
        knn(k=1000).build(many)
    with pytest.raises(ConfigError, match="'knn'"):
        knn(k=10**9).build(many)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"k": 0}, "k"),
        ({"k": 2.5}, "k"),
        ({"max_distance": 0}, "max_distance"),
        ({"max_distance": float("inf")}, "max_distance"),
        ({"unit": "um"}, "unit"),
        ({"nodes": "platelets"}, "nodes"),
        ({"radius": 3}, "radius"),
    ],
)
def test_wrong_parameters(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"knn: {said}"):
        KnnBuilder.parse(values)
