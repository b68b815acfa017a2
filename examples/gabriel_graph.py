"""A graph builder in one file: the Gabriel graph, the Delaunay links between which nothing lies.

    leukokit graph examples/smear.png --plugin examples/gabriel_graph.py --graph gabriel --out smear.graphml

No paper on leukocytes has it; it is here to show how little a builder takes. Two cells are linked where no
other lies in or on the circle that has the two as its diameter (Gabriel & Sokal 1969, doi:10.2307/2412323).
All such links are Delaunay's (Matula & Sokal 1980, Geographical Analysis 12:205-222).
"""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit import GraphBuilder, GraphBuilderParams, register
from leukokit.graph_builders import squared_lengths, triangulate, within

ROUNDING = 1e-9
"""Share of the radius by which a cell may be outside and still counts as on the circle."""


class GabrielParams(GraphBuilderParams):
    max_distance: float | None = Field(
        4.0, gt=0, allow_inf_nan=False, description="longest link, in 'unit'; null for any"
    )


@register
class GabrielBuilder(GraphBuilder[GabrielParams]):
    name = "gabriel"
    version = "1.0"
    summary = "links cells where no other lies in the circle between them"
    api_version = "1.0"

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        # Cells on one spot count as one, for each would lie on the circles of the others.
        spots, first, spot_of = np.unique(points, axis=0, return_index=True, return_inverse=True)
        links = np.concatenate([first[gabriel(spots)], chained(spot_of.ravel())], axis=1)
        longest = None if self.params.max_distance is None else self.params.max_distance * unit
        return within(points, links, longest)


def gabriel(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Links (2, P) int64 of the Gabriel graph of (M, 2) points, no two of them alike."""
    from scipy.spatial import KDTree

    links = triangulate(points)
    # The two cells are on the circle themselves: it is empty where the third nearest is outside.
    near, _ = KDTree(points).query(points[links].mean(axis=0), k=3)
    radius = np.sqrt(squared_lengths(points, links)) / 2
    return links[:, near[:, 2] > radius * (1 + ROUNDING)]


def chained(spot_of: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Links (2, P) int64 from each cell to the next on the same spot."""
    order = np.argsort(spot_of, kind="stable")
    links = np.stack([order[:-1], order[1:]])
    return links[:, spot_of[links[0]] == spot_of[links[1]]]
