"""Builder ``knn``: the nearest cells of every cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit.graph_builders.base import GraphBuilder, GraphBuilderParams, within

_MARGIN = 1 + 1e-12
"""Distances whose ratio is below this may be equal but for rounding."""
_WORTH_THREADS = 5_000
"""Points from which a thread per core is faster than one, the starting of them included."""
_FEW = 256
"""Points up to which all distances are computed."""


class KnnParams(GraphBuilderParams):
    """Parameters of the builder ``knn``."""

    # As many as fit around one in a monolayer of equal cells.
    k: int = Field(6, ge=1, description="number of nearest cells that each cell is linked to")
    max_distance: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="longest link, in 'unit'; null for any length"
    )


class KnnBuilder(GraphBuilder[KnnParams]):
    """Links every cell to its ``k`` nearest; it is enough that one of the two is among the other's nearest.

    Of cells equally far away the lower numbers are taken. Where there are at most ``k`` others, all of
    them are linked.

    Examples:
        >>> from leukokit.cells import Cells
        >>> boxes = np.array([[0, 0, 10, 10], [12, 0, 22, 10], [60, 0, 70, 10], [72, 0, 82, 10]])
        >>> cells = Cells(boxes, np.ones(4, int), np.ones(4))
        >>> KnnBuilder(KnnParams(k=1)).build(cells).edges.T.tolist()
        [[0, 1], [2, 3]]
    """

    name = "knn"
    version = "1.0"
    summary = "links every cell to its k nearest cells"

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        """Return every point paired with its nearest."""
        count, k = len(points), self.params.k
        longest = None if self.params.max_distance is None else self.params.max_distance * unit
        if k >= count - 1:
            self.refuse_excess(count * (count - 1) // 2)
            return within(points, np.stack(np.triu_indices(count, 1)), longest)
        self.refuse_excess(count * k)
        neighbours = nearest(points, k)
        return within(points, np.stack([np.arange(count).repeat(k), neighbours.ravel()]), longest)


def nearest(points: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.int64]:
    """Return (M, k) int64: the ``k`` nearest others of each of M points, M at least ``k`` + 2.

    Of points equally far the lower positions are taken, whatever order a tree would have found them in.
    """
    if len(points) <= _FEW:
        # A tree is no faster then, and its import takes longer than all else that a single field needs.
        everything = np.broadcast_to(np.arange(len(points)), (len(points), len(points)))
        return _first(points, np.arange(len(points)), everything, k)
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    found = np.empty((len(points), k), np.int64)
    rows, width = np.arange(len(points)), k + 2
    while len(rows):
        width = min(width, len(points))
        threads = -1 if len(rows) > _WORTH_THREADS else 1
        distances, columns = tree.query(points[rows], k=width, workers=threads)
        # What lies beyond the last column may be as near as the k-th neighbour: these rows need more.
        settled = distances[:, -1] > distances[:, k] * _MARGIN
        if width == len(points):
            settled[:] = True
        found[rows[settled]] = _first(points, rows[settled], columns[settled], k)
        stacked = ~settled & (distances[:, -1] == 0)
        if stacked.any():
            found[rows[stacked]] = _stack_mates(points, rows[stacked], k)
        rows, width = rows[~settled & ~stacked], 4 * width
    return found


def _first(
    points: npt.NDArray[np.float64], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.int64]:
    squared = ((points[columns] - points[rows, None]) ** 2).sum(axis=-1)
    squared[columns == rows[:, None]] = -1.0
    order = np.lexsort((columns, squared), axis=-1)[:, 1 : k + 1]
    return np.asarray(np.take_along_axis(columns, order, axis=1))


def _stack_mates(
    points: npt.NDArray[np.float64], rows: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.int64]:
    """The first ``k`` others at exactly the place of each row's point, where more than ``k`` others are."""
    order = np.lexsort(points.T)
    spots = points[order]
    is_first = np.append(True, (spots[1:] != spots[:-1]).any(axis=1))
    starts = np.flatnonzero(is_first)
    spot_of = np.empty(len(points), np.int64)
    spot_of[order] = is_first.cumsum() - 1
    mates = order[starts[spot_of[rows]][:, None] + np.arange(k + 1)]
    own = mates == rows[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(mates[~own].reshape(len(rows), k))
