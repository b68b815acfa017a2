"""The cell graph: the cells of a field and the links between neighbours."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leukokit.cells import Cells, Labelling
from leukokit.taxonomy import KINDS

if TYPE_CHECKING:
    import networkx as nx
    from torch_geometric.data import Data

NODE_FEATURES: Final = (*KINDS, "score", "diameter", "log_aspect", "degree", "mean_edge_length")
"""Columns of ``CellGraph.node_features``, float32:

- ``leukocyte``, ``erythrocyte``, ``platelet``: 1 in the column of the cell's kind, 0 in the others;
- ``score``: the detector's confidence, 0..1;
- ``diameter``: geometric mean of the box's sides, in erythrocyte diameters;
- ``log_aspect``: natural logarithm of the box's width over its height, each at least one pixel;
- ``degree``: number of linked cells;
- ``mean_edge_length``: mean distance to them, in erythrocyte diameters; 0 without links.
"""

EDGE_FEATURES: Final = ("length", "log_diameter_ratio")
"""Columns of ``CellGraph.edge_features``, float32, for an edge from cell i to cell j:

- ``length``: distance between the centres, in erythrocyte diameters;
- ``log_diameter_ratio``: natural logarithm of j's diameter over i's, each at least one pixel.
"""

_SIDES: Final = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CellGraph:
    """All cells of a field and the links between them; checked when made. N and E may be 0.

    Every cell is a node; node i is cell i. Lengths in erythrocyte diameters use the field's own ruler,
    ``cells.ruler_px``; where no cell has a size, they are 0.

    Attributes:
        cells: the N nodes.
        edges: (2, E) int64, undirected, each once: ``edges[0] < edges[1]``, sorted by first, then second.
        builder: name of the plugin that linked them, printable; empty for none.
        params: its parameters, as JSON values.

    Raises:
        ValueError: an edge leads to a cell that does not exist or to itself, is repeated or out of order;
            or an attribute has another type.

    Examples:
        >>> import numpy as np
        >>> boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
        >>> cells = Cells(boxes, np.array([1, 1, 1]), np.array([0.9, 0.8, 0.7]))
        >>> graph = CellGraph(cells, canonical_edges(np.array([[1, 1], [0, 2]]), 3))
        >>> graph.edges.T.tolist(), graph.lengths.tolist()
        ([[0, 1], [1, 2]], [2.0, 2.0])
        >>> graph.to_networkx().nodes[0]["kind"]
        'erythrocyte'
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
                raise ValueError("edges must be sorted by first, then second cell, without repeats")
        if not self.builder.isprintable():
            raise ValueError(f"the builder's name must be printable, not {self.builder!r}")
        if not _is_json(self.params):
            raise ValueError("params must be JSON values")
        object.__setattr__(self, "edges", edges.astype(np.int64))

    @classmethod
    def unlinked(cls, cells: Cells) -> CellGraph:
        """A graph of the cells without links."""
        return cls(cells, np.empty((2, 0), np.int64))

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        return f"<CellGraph of {self.cells!r}, {self.edges.shape[1]} links by {self.builder or 'no builder'}>"

    @property
    def lengths_px(self) -> npt.NDArray[np.float32]:
        """(E,) float32: distance between the centres of the two boxes, in pixels."""
        points = self.cells.centres
        across, down = (points[self.edges[1]] - points[self.edges[0]]).T
        return np.asarray(np.hypot(across, down), np.float32)

    @property
    def lengths(self) -> npt.NDArray[np.float32]:
        """(E,) float32: ``lengths_px`` in erythrocyte diameters."""
        return self._in_diameters(self.lengths_px)

    @property
    def degrees(self) -> npt.NDArray[np.int64]:
        """(N,) int64: number of links of each cell."""
        return np.bincount(self.edges.ravel(), minlength=len(self)).astype(np.int64)

    @property
    def node_features(self) -> npt.NDArray[np.float32]:
        """(N, F) float32, with the columns and units of ``NODE_FEATURES``."""
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
        """(E, K) float32, with the columns and units of ``EDGE_FEATURES``, each edge read from i to j."""
        sizes = np.log(np.maximum(self.cells.diameters.astype(np.float64), 1.0))
        ratio = sizes[self.edges[1]] - sizes[self.edges[0]]
        return np.column_stack([self.lengths, ratio.astype(np.float32)])

    def to_networkx(self) -> nx.Graph:
        """Return a ``networkx.Graph`` of Python's own types, which networkx can write in any format.

        Nodes have the cells' numbers and the attributes ``kind`` (its name), ``score``, ``x1``, ``y1``,
        ``x2``, ``y2`` (pixels); edges have ``length_px`` and ``length_diameters``; the graph has ``builder``
        and, as JSON texts, ``params`` and ``notes``. With a labelling, nodes also have ``label``, ``review``
        and a ``p_CLASS`` for each class, and the graph has ``review_threshold`` and, as a JSON text,
        ``classes``.
        """
        import networkx as nx

        cells = self.cells
        graph = nx.Graph(**self._graph_attributes())
        rows = zip(cells.kinds.tolist(), cells.scores.tolist(), cells.boxes.tolist(), strict=True)
        graph.add_nodes_from(
            (number, {"kind": KINDS[kind], "score": score, **dict(zip(_SIDES, box, strict=True))})
            for number, (kind, score, box) in enumerate(rows)
        )
        if (labelling := cells.labelling) is not None:
            names = ["label", "review", *(f"p_{name}" for name in labelling.classes)]
            columns = (labelling.labels, labelling.review.tolist(), *labelling.probabilities.T.tolist())
            for node, values in zip(graph.nodes.values(), zip(*columns, strict=True), strict=True):
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
        """Read a graph that ``to_networkx`` made, also after networkx has written and read it.

        Nodes may be numbers or texts of numbers, as in GraphML and GEXF, in any order; lengths are measured
        again. GEXF has no attributes of the graph: ``params`` and ``notes`` come back empty, cells come back
        without classes, and ``builder`` is the graph's name.

        Raises:
            ValueError: nodes are not 0 to N - 1, an attribute is missing or out of range, or a cell is
                linked to itself.
        """
        attributes = graph.graph
        try:
            nodes = sorted(((int(str(name)), values) for name, values in graph.nodes(data=True)), key=_number)
            if [number for number, _ in nodes] != list(range(len(nodes))):
                raise ValueError(f"nodes must be numbered from 0 to {len(nodes) - 1}")
            cells = Cells(
                np.array([[values[side] for side in _SIDES] for _, values in nodes], np.float32),
                np.array([KINDS.index(values["kind"]) for _, values in nodes], np.int64),
                np.array([values["score"] for _, values in nodes], np.float32),
                tuple(json.loads(attributes.get("notes", "[]"))),
            )
            if "classes" in attributes:
                classes = tuple(json.loads(attributes["classes"]))
                rows = [[values[f"p_{name}"] for name in classes] for _, values in nodes]
                probabilities = np.array(rows, np.float32).reshape(-1, len(classes))
                threshold = attributes["review_threshold"]
                cells = cells.with_labelling(Labelling(probabilities, classes, threshold))
        except KeyError as error:
            raise ValueError(f"attribute {error} is missing") from error
        pairs = [(int(str(i)), int(str(j))) for i, j in graph.edges()]
        edges = canonical_edges(np.array(pairs, np.int64).reshape(-1, 2).T, len(cells))
        return cls(
            cells,
            edges,
            attributes.get("builder", attributes.get("name", "")),
            json.loads(attributes.get("params", "{}")),
        )

    def both_directions(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return ``edges`` followed by their reverses, (2, 2E) int64, and their features, (2E, K) float32.

        The ratio of diameters of a reversed edge is reversed as well.
        """
        forward = self.edge_features
        backward = forward * np.array([1, -1], np.float32)
        return np.concatenate([self.edges, self.edges[::-1]], axis=1), np.concatenate([forward, backward])

    def to_pyg(self) -> Data:
        """Return ``torch_geometric.data.Data`` on the CPU; graphs of several fields can be batched.

        ``x`` (N, F) and ``edge_attr`` (2E, K) float32 are ``node_features`` and ``edge_features``;
        ``edge_index`` (2, 2E) int64 is from ``both_directions``; ``pos`` (N, 2) float32 are centres in
        pixels. ``boxes``, ``kinds`` and ``scores`` are the cells' arrays; ``builder``, ``params`` and
        ``notes`` are texts, the last two JSON. With a labelling also ``probabilities`` (N, C) float32,
        ``review_threshold`` and, as JSON, ``classes``.
        """
        import torch

        with warnings.catch_warnings():
            # torch-geometric uses parts of torch that warn when they are imported.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch_geometric.data import Data

        edges, edge_features = self.both_directions()
        cells = self.cells
        data = Data(
            x=torch.from_numpy(self.node_features),
            edge_index=torch.from_numpy(edges),
            edge_attr=torch.from_numpy(edge_features),
            pos=torch.from_numpy(cells.centres.astype(np.float32)),
            boxes=torch.from_numpy(cells.boxes.copy()),
            kinds=torch.from_numpy(cells.kinds.copy()),
            scores=torch.from_numpy(cells.scores.copy()),
            **self._graph_attributes(),
        )
        if cells.labelling is not None:
            data.probabilities = torch.from_numpy(cells.labelling.probabilities.copy())
        return data

    def _graph_attributes(self) -> dict[str, str | float]:
        cells = self.cells
        attributes: dict[str, str | float] = {
            "builder": self.builder,
            "params": json.dumps(self.params),
            "notes": json.dumps(cells.notes),
        }
        if (labelling := cells.labelling) is not None:
            attributes["classes"] = json.dumps(labelling.classes)
            attributes["review_threshold"] = float(labelling.review_threshold)
        return attributes

    def _in_diameters(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        ruler = self.cells.ruler_px
        return np.zeros_like(pixels) if ruler is None else (pixels / ruler).astype(np.float32)


def canonical_edges(pairs: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Bring pairs of cells into the form of ``CellGraph.edges``.

    Args:
        pairs: (2, P) int64, numbers below ``count``, in any order and direction, repeats allowed.
        count: number of cells.

    Returns:
        (2, E) int64, each pair once, the lower number first, sorted.

    Raises:
        ValueError: another shape, a number out of range, or a pair of a number with itself.
    """
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise ValueError(f"pairs must have the shape (2, P), not {pairs.shape}")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= count):
        raise ValueError(f"pairs must be of cells numbered from 0 to {count - 1}")
    low, high = np.minimum(*pairs), np.maximum(*pairs)
    if (low == high).any():
        raise ValueError("a cell cannot be linked to itself")
    # One number per pair: that sorts much faster than rows do, and than numpy's unique, which hashes.
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
