"""Cells with the links between neighbours: what a classifier sees of a cell's surroundings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leukokit.cells import Cells, Labelling
from leukokit.taxonomy import KINDS

if TYPE_CHECKING:
    import networkx as nx

    from leukokit.pyg import Data

NODE_FEATURES: Final = (*KINDS, "score", "diameter", "log_aspect", "degree", "mean_edge_length")
"""Columns of ``CellGraph.node_features``, float32:

- ``leukocyte``, ``erythrocyte``, ``platelet``: 1 in the column of the cell's kind, 0 in the others;
- ``score``: the detector's confidence, 0..1;
- ``diameter``: geometric mean of the box's sides, in red-cell diameters;
- ``log_aspect``: natural logarithm of the box's width over its height, no side counted below one pixel;
- ``degree``: number of linked cells;
- ``mean_edge_length``: mean distance to them, in red-cell diameters; 0 without any.
"""

EDGE_FEATURES: Final = ("length", "log_diameter_ratio")
"""Columns of ``CellGraph.edge_features``, float32, for an edge from cell i to cell j:

- ``length``: distance between the centres, in red-cell diameters;
- ``log_diameter_ratio``: natural logarithm of j's diameter over i's, neither counted below one pixel.
"""

_SIDES: Final = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CellGraph:
    """All cells of a field, some of them linked; checked when made. N cells and E edges, both may be 0.

    Every cell is a node, whose number is the cell's. "Red-cell diameters" are of the smear's own ruler,
    ``cells.ruler_px``; where no cell has a size, whatever is measured in them is 0.

    Attributes:
        cells: the nodes.
        edges: (2, E) int64, undirected, each once: ``edges[0] < edges[1]``, sorted by first, then second.
        builder: name of the plugin that linked them, printable; empty for none.
        params: its parameters, as plain JSON values.

    Raises:
        ValueError: an edge to no cell or to itself, twice the same, out of order; or an attribute of
            another type.
    """

    cells: Cells
    edges: npt.NDArray[np.int64]
    builder: str = ""
    params: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        edges = np.asarray(self.edges)
        if edges.ndim != 2 or edges.shape[0] != 2:
            raise ValueError(f"edges must have the shape (2, E), not {edges.shape}")
        if edges.size:
            if edges.dtype.kind not in "iu":
                raise ValueError(f"edges must be whole numbers, not {edges.dtype}")
            if edges.min() < 0 or edges.max() >= len(self.cells):
                raise ValueError(f"edges must link cells numbered from 0 to {len(self.cells) - 1}")
            first, second = edges
            if (first >= second).any():
                raise ValueError("edges must lead from the lower to the higher cell, none to itself")
            step = np.diff(first)
            if (step < 0).any() or (np.diff(second)[step == 0] <= 0).any():
                raise ValueError("edges must be sorted by first, then second cell, each there once")
        if not self.builder.isprintable():
            raise ValueError(f"the builder's name must be printable, not {self.builder!r}")
        if not _is_json(self.params):
            raise ValueError("params must be plain JSON values")
        object.__setattr__(self, "edges", edges.astype(np.int64))

    @classmethod
    def unlinked(cls, cells: Cells) -> CellGraph:
        """Cells without edges: every one by itself."""
        return cls(cells, np.empty((2, 0), np.int64))

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        return f"<CellGraph of {self.cells!r}, {self.edges.shape[1]} links by {self.builder or 'nothing'}>"

    @property
    def lengths_px(self) -> npt.NDArray[np.float32]:
        """(E,) float32: distance between the centres of the two boxes, in pixels."""
        points = centres(self.cells)
        across, down = (points[self.edges[1]] - points[self.edges[0]]).T
        return np.asarray(np.hypot(across, down), np.float32)

    @property
    def lengths(self) -> npt.NDArray[np.float32]:
        """(E,) float32: ``lengths_px`` in red-cell diameters."""
        return self._in_diameters(self.lengths_px)

    @property
    def degrees(self) -> npt.NDArray[np.int64]:
        """(N,) int64: number of cells that each is linked with."""
        return np.bincount(self.edges.ravel(), minlength=len(self)).astype(np.int64)

    @property
    def node_features(self) -> npt.NDArray[np.float32]:
        """(N, F) float32, the columns and units of ``NODE_FEATURES``."""
        cells, degrees = self.cells, self.degrees
        sides = cells.boxes[:, 2:].astype(np.float64) - cells.boxes[:, :2]
        width, height = np.maximum(sides, 1.0).T
        summed = np.bincount(self.edges.ravel(), np.tile(self.lengths, 2), minlength=len(self))
        columns = (
            *(cells.kinds == kind for kind in range(len(KINDS))),
            cells.scores,
            self._in_diameters(cells.diameters),
            np.log(width / height),
            degrees,
            summed / np.maximum(degrees, 1),
        )
        return np.column_stack([np.asarray(column, np.float32) for column in columns])

    @property
    def edge_features(self) -> npt.NDArray[np.float32]:
        """(E, K) float32, the columns and units of ``EDGE_FEATURES``, each edge read from i to j."""
        sizes = np.log(np.maximum(self.cells.diameters.astype(np.float64), 1.0))
        ratio = sizes[self.edges[1]] - sizes[self.edges[0]]
        return np.column_stack([self.lengths, ratio.astype(np.float32)])

    def to_networkx(self) -> nx.Graph:
        """As ``networkx.Graph``, of plain values only, so that networkx can write it in any format.

        Nodes are numbered as the cells are and carry ``kind`` (its name), ``score`` and the box, ``x1``,
        ``y1``, ``x2``, ``y2`` (pixels); edges carry ``length_px`` and ``length_diameters``; the graph,
        ``builder`` and, as JSON texts, ``params`` and ``notes``. Once cells are labelled, nodes carry
        ``label``, ``review`` and a ``p_CLASS`` for each class, and the graph ``limit`` and, as a JSON text,
        ``classes``.
        """
        import networkx as nx

        cells = self.cells
        graph = nx.Graph(**self._labels())
        rows = zip(cells.kinds.tolist(), cells.scores.tolist(), cells.boxes.tolist(), strict=True)
        graph.add_nodes_from(
            (number, {"kind": KINDS[kind], "score": score, **dict(zip(_SIDES, box, strict=True))})
            for number, (kind, score, box) in enumerate(rows)
        )
        if (labelling := cells.labelling) is not None:
            names = ["label", "review", *(f"p_{name}" for name in labelling.classes)]
            found = zip(
                labelling.labels, labelling.review.tolist(), *labelling.probabilities.T.tolist(), strict=True
            )
            for node, values in zip(graph.nodes.values(), found, strict=True):
                node.update(zip(names, values, strict=True))
        graph.add_edges_from(
            (i, j, {"length_px": pixels, "length_diameters": diameters})
            for i, j, pixels, diameters in zip(
                *self.edges.tolist(), self.lengths_px.tolist(), self.lengths.tolist(), strict=True
            )
        )
        return graph

    @classmethod
    def from_networkx(cls, graph: nx.Graph) -> CellGraph:
        """The graph that ``to_networkx`` made, also after networkx has written and read it.

        Nodes may be numbers or their texts, as GraphML and GEXF hold them, in any order; lengths are
        measured anew. GEXF has no room for attributes of the graph: from there ``params`` and ``notes`` come
        back empty, cells without their classes, and ``builder`` is the graph's name.

        Raises:
            ValueError: nodes are not 0 to N - 1, an attribute is missing or out of range, or a cell is
                linked to itself.
        """
        labels = graph.graph
        try:
            nodes = sorted(((int(str(name)), values) for name, values in graph.nodes(data=True)), key=_number)
            if [number for number, _ in nodes] != list(range(len(nodes))):
                raise ValueError(f"nodes must be numbered from 0 to {len(nodes) - 1}")
            cells = Cells(
                np.array([[values[side] for side in _SIDES] for _, values in nodes], np.float32),
                np.array([KINDS.index(values["kind"]) for _, values in nodes], np.int64),
                np.array([values["score"] for _, values in nodes], np.float32),
                tuple(json.loads(labels.get("notes", "[]"))),
            )
            if "classes" in labels:
                classes = tuple(json.loads(labels["classes"]))
                rows = [[values[f"p_{name}"] for name in classes] for _, values in nodes]
                probabilities = np.array(rows, np.float32).reshape(-1, len(classes))
                cells = cells.labelled(Labelling(probabilities, classes, labels["limit"]))
        except KeyError as error:
            raise ValueError(f"there is no attribute {error}") from error
        pairs = [(int(str(i)), int(str(j))) for i, j in graph.edges()]
        edges = canonical(np.array(pairs, np.int64).reshape(-1, 2).T, len(cells))
        return cls(
            cells,
            edges,
            labels.get("builder", labels.get("name", "")),
            json.loads(labels.get("params", "{}")),
        )

    def both_directions(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``edges`` and then each of them reversed, (2, 2E) int64, with their features, (2E, K) float32.

        The ratio of diameters of a reversed edge is reversed, too.
        """
        forth = self.edge_features
        back = forth * np.array([1, -1], np.float32)
        return np.concatenate([self.edges, self.edges[::-1]], axis=1), np.concatenate([forth, back])

    def to_pyg(self) -> Data:
        """As ``torch_geometric.data.Data``, on the CPU; graphs of several smears batch.

        ``x`` (N, F) and ``edge_attr`` (2E, K) float32 are ``node_features`` and ``edge_features``;
        ``edge_index`` (2, 2E) int64 is of ``both_directions``; ``pos`` (N, 2) float32 are centres in pixels.
        ``boxes``, ``kinds`` and ``scores`` are the cells' own arrays; ``builder``, ``params`` and ``notes``
        are texts, the last two JSON. Labelled cells add ``probabilities`` (N, C) float32, ``limit`` and, as
        JSON, ``classes``.
        """
        import torch

        from leukokit.pyg import Data

        edges, figures = self.both_directions()
        data = Data(
            x=torch.from_numpy(self.node_features),
            edge_index=torch.from_numpy(edges),
            edge_attr=torch.from_numpy(figures),
            pos=torch.from_numpy(centres(self.cells).astype(np.float32)),
            boxes=torch.from_numpy(self.cells.boxes.copy()),
            kinds=torch.from_numpy(self.cells.kinds.copy()),
            scores=torch.from_numpy(self.cells.scores.copy()),
            **self._labels(),
        )
        if self.cells.labelling is not None:
            data.probabilities = torch.from_numpy(self.cells.labelling.probabilities.copy())
        return data

    def _labels(self) -> dict[str, str | float]:
        cells = self.cells
        labels: dict[str, str | float] = {
            "builder": self.builder,
            "params": json.dumps(self.params),
            "notes": json.dumps(cells.notes),
        }
        if cells.labelling is not None:
            labels |= {"classes": json.dumps(cells.labelling.classes), "limit": float(cells.labelling.limit)}
        return labels

    def _in_diameters(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        ruler = self.cells.ruler_px
        return np.zeros_like(pixels) if ruler is None else (pixels / ruler).astype(np.float32)


def centres(cells: Cells) -> npt.NDArray[np.float64]:
    """(N, 2) float64: x and y of the middle of each box, in pixels."""
    boxes = cells.boxes.astype(np.float64)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def canonical(pairs: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Pairs of numbers below ``count``, (2, P) in any order and direction, as ``CellGraph.edges`` wants them.

    Raises:
        ValueError: another shape, a pair of other numbers, or of a number with itself.
    """
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise ValueError(f"pairs must have the shape (2, P), not {pairs.shape}")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= count):
        raise ValueError(f"pairs must be of cells numbered from 0 to {count - 1}")
    low, high = np.minimum(*pairs), np.maximum(*pairs)
    if (low == high).any():
        raise ValueError("a cell cannot be linked to itself")
    # One number a pair: they sort much faster than rows do, and than numpy's unique, which hashes.
    keys = np.sort(low * count + high)
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    return np.stack(np.divmod(keys, max(count, 1)))


def _number(node: tuple[int, dict[str, Any]]) -> int:
    return node[0]


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False
