"""A leukocyte's surroundings in numbers: features of the nodes of a cell graph, and their summary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from leukokit.crops.appearance import APPEARANCE
from leukokit.graph import NODE_FEATURES, CellGraph
from leukokit.taxonomy import ERYTHROCYTE, KINDS

CONTEXT_FEATURES: Final = (*NODE_FEATURES, *APPEARANCE)
"""Columns of ``context_features``: geometry (see ``leukokit.graph``), then colours."""

_OWN_FEATURES: Final = tuple(CONTEXT_FEATURES[len(KINDS) + 1 :])
DESCRIPTOR: Final = (
    *_OWN_FEATURES,
    *(f"neighbour_{kind}_share" for kind in KINDS),
    "neighbour_mean_diameter",
    "neighbour_spread_of_diameter",
    *(f"neighbour_mean_{name}" for name in APPEARANCE),
    *(f"neighbour_spread_of_{name}" for name in APPEARANCE),
    *(f"erythrocyte_median_{name}" for name in APPEARANCE),
    "log_cells",
    "log_erythrocytes",
    "erythrocytes_measured",
)
"""The 64 figures of ``descriptors``."""


def context_features(graph: CellGraph, appearances: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Features of every node, (N, 21) float32, columns as ``CONTEXT_FEATURES``.

    Args:
        graph: N cells.
        appearances: (N, 13) float32, ``appearance`` of its cells.
    """
    return np.concatenate([graph.node_features, appearances], axis=1)


class GraphArrays(NamedTuple):
    """A graph for a graph network.

    Attributes:
        features: (N, 21) float32, ``context_features``.
        edges: (2, 2E) int64, links in both directions.
        edge_features: (2E, 2) float32, columns as ``graph.EDGE_FEATURES``.
    """

    features: npt.NDArray[np.float32]
    edges: npt.NDArray[np.int64]
    edge_features: npt.NDArray[np.float32]


def context_arrays(graph: CellGraph, appearances: npt.NDArray[np.float32]) -> GraphArrays:
    """Return the graph for a graph network; ``appearances`` as in ``context_features``."""
    edges, edge_features = graph.both_directions()
    return GraphArrays(context_features(graph, appearances), edges, edge_features)


def join_graphs(graphs: Sequence[GraphArrays]) -> tuple[GraphArrays, list[int]]:
    """Return several graphs as one whose parts are not linked, and the number of each one's first node."""
    features, links, figures = zip(*graphs, strict=True)
    starts = list(itertools.accumulate((len(nodes) for nodes in features[:-1]), initial=0))
    moved = [edges + start for edges, start in zip(links, starts, strict=True)]
    joined = (np.concatenate(features), np.concatenate(moved, axis=1), np.concatenate(figures))
    return GraphArrays(*joined), starts


def descriptors(graph: CellGraph, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every cell and its neighbourhood in 64 figures.

    The seed paper (Altarawneh 2023) feeds its network a 64-vector beside the picture and leaves open what
    it holds; here it is the cell's context: its own figures, mean and spread over the cells it is linked
    to, and the field's median erythrocyte. Figures of neighbours that are not there are 0.

    Args:
        graph: N cells.
        features: (N, 21) float32, ``context_features`` of the graph.

    Returns:
        (N, 64) float32, columns as ``DESCRIPTOR``.
    """
    count = len(graph)
    ends = np.concatenate([graph.edges, graph.edges[::-1]], axis=1)
    degree = np.maximum(np.bincount(ends[0], minlength=count), 1)[:, None]
    columns = np.concatenate([features[:, : len(KINDS)], features[:, _DIAMETER : _DIAMETER + 1],
                              features[:, len(NODE_FEATURES) :]], axis=1)  # fmt: skip
    mean, square = np.zeros_like(columns), np.zeros_like(columns)
    np.add.at(mean, ends[0], columns[ends[1]])
    np.add.at(square, ends[0], columns[ends[1]] ** 2)
    mean /= degree
    spread = np.sqrt(np.maximum(square / degree - mean**2, 0))
    erythrocytes = graph.cells.kinds == ERYTHROCYTE
    appearances = features[:, len(NODE_FEATURES) :]
    median = (
        np.median(appearances[erythrocytes], axis=0) if erythrocytes.any() else np.zeros(appearances.shape[1])
    )
    field = [*median, np.log1p(count), np.log1p(erythrocytes.sum()), float(erythrocytes.sum() >= 3)]
    kinds = len(KINDS)
    return np.concatenate(
        [
            features[:, kinds + 1 :],
            mean[:, : kinds + 1],
            spread[:, kinds : kinds + 1],
            mean[:, kinds + 1 :],
            spread[:, kinds + 1 :],
            np.broadcast_to(np.asarray(field, dtype=np.float32), (count, len(field))),
        ],
        axis=1,
    ).astype(np.float32)


_DIAMETER = NODE_FEATURES.index("diameter")
