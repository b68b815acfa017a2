"""All within a distance: against brute force, the boundary included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import Cells
from leukokit.errors import ConfigError
from leukokit.graph_builders.radius import RadiusBuilder


def cells_at(points: Any, side: float = 10.0) -> Cells:
    middle = np.asarray(points, np.float64).reshape(-1, 2)
    boxes = np.hstack([middle - side / 2, middle + side / 2])
    return Cells(boxes.astype(np.float32), np.ones(len(boxes), int), np.ones(len(boxes), np.float32))


def edges_of(points: Any, **values: Any) -> list[list[int]]:
    return RadiusBuilder(RadiusBuilder.parse(values)).build(cells_at(points)).edges.T.tolist()


GRID = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40)


@settings(deadline=None, max_examples=150)
@given(GRID, st.integers(1, 9))
def test_against_brute_force(points: list[tuple[int, int]], radius: int) -> None:
    wanted = [
        [i, j]
        for i, (x, y) in enumerate(points)
        for j, (u, v) in enumerate(points)
        if i < j and (x - u) ** 2 + (y - v) ** 2 <= radius**2
    ]
    assert edges_of(points, radius=radius, unit="px") == wanted


def test_the_same_field_at_another_magnification_has_the_same_graph() -> None:
    points = np.random.default_rng(0).random((400, 2)) * 500
    small = RadiusBuilder().build(cells_at(points))
    large = RadiusBuilder().build(cells_at(points * 4, 40))
    np.testing.assert_array_equal(small.edges, large.edges)
    assert 0 < small.lengths.max() <= 3.00001
    np.testing.assert_allclose(small.lengths, large.lengths, rtol=1e-4, atol=1e-5)
    in_pixels = RadiusBuilder(RadiusBuilder.parse({"unit": "px", "radius": 30}))
    np.testing.assert_array_equal(in_pixels.build(cells_at(points)).edges, small.edges)
    assert in_pixels.build(cells_at(points * 4, 40)).edges.shape[1] < small.edges.shape[1]


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ([], []),
        ([[3, 3]], []),
        ([[0, 0], [30, 0]], [[0, 1]]),
        ([[0, 0], [30.5, 0]], []),
        ([[0, 0], [0, 0], [0, 0]], [[0, 1], [0, 2], [1, 2]]),
        ([[0, 0], [20, 0], [40, 0]], [[0, 1], [1, 2]]),
    ],
)
def test_by_hand(points: list[list[float]], wanted: list[list[int]]) -> None:
    assert edges_of(points, radius=3) == wanted


def test_a_radius_beyond_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'radius': 49,995,000 pairs.*shorter distance"):
        edges_of(np.random.default_rng(0).random((10_000, 2)) * 100, radius=1000)


@pytest.mark.parametrize("radius", [0, -1, float("nan"), float("inf"), "far"])
def test_wrong_radius(radius: Any) -> None:
    with pytest.raises(ConfigError, match="radius: radius"):
        RadiusBuilder.parse({"radius": radius})
