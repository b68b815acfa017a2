"""Graphs of cells as tensors, for the training of graph networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from leukokit.classifiers.networks.context import context_arrays
from leukokit.graph import CellGraph


class GraphTensors(NamedTuple):
    """``context.GraphArrays`` as tensors."""

    features: torch.Tensor
    edges: torch.Tensor
    edge_features: torch.Tensor


@dataclass(frozen=True, slots=True)
class GraphBatch:
    """Several graphs as one whose parts are not linked.

    Attributes:
        tensors: of all graphs together.
        starts: number of each graph's first node.
    """

    tensors: GraphTensors
    starts: list[int]

    @property
    def owners(self) -> torch.Tensor:
        """(N,) int64: the number of each node's graph."""
        ends = [*self.starts[1:], len(self.tensors.features)]
        counts = [end - start for start, end in zip(self.starts, ends, strict=True)]
        return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))

    def to(self, device: str | torch.device) -> GraphBatch:
        """Return the batch on a device."""
        return GraphBatch(GraphTensors(*(tensor.to(device) for tensor in self.tensors)), self.starts)


def context_tensors(graph: CellGraph, appearances: npt.NDArray[np.float32]) -> GraphTensors:
    """Return the graph for a graph network, on the CPU; ``appearances`` as in ``context_features``."""
    return GraphTensors(*map(torch.from_numpy, context_arrays(graph, appearances)))


def side_by_side(graphs: Sequence[GraphTensors]) -> GraphBatch:
    """Return several graphs as one."""
    features, links, figures = zip(*graphs, strict=True)
    starts = list(itertools.accumulate((len(nodes) for nodes in features[:-1]), initial=0))
    moved = [edges + start for edges, start in zip(links, starts, strict=True)]
    return GraphBatch(GraphTensors(torch.cat(features), torch.cat(moved, dim=1), torch.cat(figures)), starts)
