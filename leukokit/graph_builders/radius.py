"""Builder ``radius``: all cells within a distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit.graph_builders.base import GraphBuilder, GraphBuilderParams


class RadiusParams(GraphBuilderParams):
    """Parameters of the builder ``radius``."""

    # Two cells that touch are one diameter apart: this reaches the neighbours' neighbours.
    radius: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="distance up to which cells are linked, in 'unit'"
    )


class RadiusBuilder(GraphBuilder[RadiusParams]):
    """Links every two cells whose centres are at most ``radius`` apart.

    The denser the field, the more neighbours a cell has: about 18 in a crowded one.
    """

    name = "radius"
    version = "1.0"
    summary = "links all cells within a distance of each other"

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        """Return all pairs within the distance."""
        from scipy.spatial import cKDTree

        tree, distance = cKDTree(points), self.params.radius * unit
        # Counted in both directions, and every point with itself.
        self.refuse_excess((int(tree.count_neighbors(tree, distance)) - len(points)) // 2)
        return np.asarray(tree.query_pairs(distance, output_type="ndarray").T, dtype=np.int64)
