"""Builder ``delaunay``: cells with no other cell between them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit.graph_builders.base import GraphBuilder, GraphBuilderParams, within


class DelaunayParams(GraphBuilderParams):
    """Parameters of the builder ``delaunay``."""

    max_distance: float | None = Field(
        4.0,
        gt=0,
        allow_inf_nan=False,
        description="longest link, in 'unit'; null for any length",
    )


class DelaunayBuilder(GraphBuilder[DelaunayParams]):
    """Links along the edges of the Delaunay triangulation of the centres, without those across empty plasma.

    Triangles are Qhull's (Barber, Dobkin & Huhdanpaa 1996, doi:10.1145/235815.235821). Cells on one line
    are linked along it; a cell at exactly the place of another is linked to it.
    """

    name = "delaunay"
    version = "1.0"
    summary = "links cells that are neighbours in the Delaunay triangulation"

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        """Return the sides of all triangles."""
        longest = None if self.params.max_distance is None else self.params.max_distance * unit
        return within(points, triangulate(points), longest)


def triangulate(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the edges (2, P) int64 of the Delaunay triangulation of (M, 2) points; each may come twice."""
    from scipy.spatial import Delaunay, QhullError

    if len(points) < 3:
        return along_line(points)
    # Qhull is a tenth faster where neighbours in space are near in memory; and of several triangulations
    # that are right, as on a lattice, it then takes the same in whatever order the cells are given.
    order = np.lexsort((points[:, 1], points[:, 0]))
    # Seen from their middle, points far from the origin lose no digits to it.
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    try:
        found = Delaunay(points[order] - middle)
    except QhullError:
        # No triangle has an area.
        return along_line(points)
    corners = found.simplices.T
    # Points that Qhull could not tell from a corner are in no triangle.
    twins = found.coplanar[:, [0, 2]].T
    sides = [corners[[0, 1]], corners[[1, 2]], corners[[2, 0]]]
    return np.asarray(order[np.concatenate([*sides, twins], axis=1)])


def along_line(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return edges (2, M - 1) int64 from each point to the next along the axis of the wider spread."""
    axis = int(np.argmax(np.ptp(points, axis=0)))
    order = np.lexsort((points[:, 1 - axis], points[:, axis]))
    return np.stack([order[:-1], order[1:]])
