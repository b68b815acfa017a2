"""The contract of a graph builder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from typing_extensions import TypeVar

from leukokit.cells import Cells
from leukokit.errors import ConfigError
from leukokit.graph import CellGraph, canonical_edges
from leukokit.plugin import Plugin, PluginParams
from leukokit.taxonomy import LEUKOCYTE

MOST_PAIRS = 20_000_000
"""Most pairs of a graph; more would fill the memory, and come from a mistaken parameter."""


class GraphBuilderParams(PluginParams):
    """Parameters of every graph builder."""

    nodes: Literal["all", "leukocytes"] = Field(
        "all", description="which cells are linked; the others stay in the graph without links"
    )
    unit: Literal["diameters", "px"] = Field(
        "diameters", description="unit of distances: erythrocyte diameters of this field, or pixels"
    )


G_co = TypeVar("G_co", bound=GraphBuilderParams, default=GraphBuilderParams, covariant=True)


class GraphBuilder(Plugin[G_co], ABC):
    """Links neighbouring cells. A subclass chooses the pairs of points; its Params extend those here."""

    def build(self, cells: Cells) -> CellGraph:
        """Return the graph of one field's cells: all are nodes, those that ``nodes`` names are linked.

        No cells, one, two, cells on a line and cells on one spot are normal inputs.

        Raises:
            ConfigError: the parameters ask for more pairs than fit in memory.
        """
        whole = self.params.nodes == "all"
        chosen = np.arange(len(cells)) if whole else np.flatnonzero(cells.kinds == LEUKOCYTE)
        edges = np.empty((2, 0), np.int64)
        if len(chosen) > 1:
            # Where no cell has a size there is no ruler: distances are in pixels.
            unit = (cells.ruler_px or 1.0) if self.params.unit == "diameters" else 1.0
            edges = chosen[canonical_edges(self.pairs(cells.centres[chosen], unit), len(chosen))]
        return CellGraph(cells, edges, self.name, self.params.model_dump(mode="json"))

    @abstractmethod
    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        """Choose the pairs of points to link.

        Args:
            points: (M, 2) float64, centres of the cells to link in pixels, M at least 2; may coincide.
            unit: pixels that a distance of 1 among the parameters stands for.

        Returns:
            (2, P) int64, positions in ``points``, no point with itself; direction, order and repetition
            do not matter.
        """

    def refuse_excess(self, pairs: int) -> None:
        """Stop before more pairs are made than fit in memory.

        Raises:
            ConfigError: there are more than ``MOST_PAIRS``.
        """
        if pairs > MOST_PAIRS:
            raise ConfigError(
                f"graph builder '{self.name}': {pairs:,} pairs of cells are more than {MOST_PAIRS:,}; "
                "set a shorter distance or fewer neighbours"
            )


def squared_lengths(points: npt.NDArray[np.float64], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return (P,) float64: squared distance of the two points of each pair."""
    between = points[pairs[1]] - points[pairs[0]]
    return np.asarray((between**2).sum(axis=1))


def within(
    points: npt.NDArray[np.float64], pairs: npt.NDArray[np.int64], distance: float | None
) -> npt.NDArray[np.int64]:
    """Return the pairs (2, P) whose points are at most ``distance`` pixels apart; all of them for None."""
    return pairs if distance is None else pairs[:, squared_lengths(points, pairs) <= distance**2]
