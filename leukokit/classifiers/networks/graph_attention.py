"""Attention over the links of a graph (GATv2), in plain torch, for training and inference alike."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import nn

LOWEST: Final = -1e30
"""Below every score of a link."""


class GraphAttention(nn.Module):
    """A layer of attention over links (GATv2, Brody et al. 2022, arXiv:2105.14491).

    It equals ``torch_geometric.nn.GATv2Conv`` without self-loops: the same parameters under the same names,
    the same first weights from the same seed, and the same results. It spares the import of that package.

    Args:
        inputs: features of a node.
        outputs: features of a node for each head.
        heads: number of heads.
        edge_dim: features of a link.
    """

    def __init__(self, inputs: int, outputs: int, heads: int = 4, *, edge_dim: int) -> None:
        super().__init__()
        self.shape = (-1, heads, outputs)
        self.lin_l = nn.Linear(inputs, heads * outputs)
        self.lin_r = nn.Linear(inputs, heads * outputs)
        self.lin_edge = nn.Linear(edge_dim, heads * outputs, bias=False)
        self.att = nn.Parameter(torch.empty(1, heads, outputs))
        self.bias = nn.Parameter(torch.zeros(heads * outputs))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the first weights (Glorot & Bengio 2010)."""
        for layer in (self.lin_l, self.lin_r, self.lin_edge):
            _draw_glorot(layer.weight)
            if layer.bias is not None:
                layer.bias.uniform_(-1 / math.sqrt(layer.in_features), 1 / math.sqrt(layer.in_features))
        _draw_glorot(self.att)
        self.bias.zero_()

    def forward(self, nodes: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor) -> torch.Tensor:
        """What reaches each node, (N, heads * outputs): of (N, inputs), (2, 2E) int64, (2E, edge_dim)."""
        source, target = edge_index
        senders, receivers = self.lin_l(nodes).view(self.shape), self.lin_r(nodes).view(self.shape)
        mixed = receivers.index_select(0, target) + senders.index_select(0, source)
        mixed = mixed + self.lin_edge(edge_attr).view(self.shape)
        scores = (nn.functional.leaky_relu(mixed, 0.2) * self.att).sum(dim=-1)
        places = target[:, None].expand_as(scores)
        # Made of another tensor, not of its length, which an export to ONNX would take for fixed.
        blank = torch.zeros_like(receivers[..., 0])
        # A softmax over the links that end at a node; without the largest score it cannot overflow.
        largest = (blank + LOWEST).scatter_reduce(0, places, scores.detach(), "amax")
        weights = (scores - largest.index_select(0, target)).exp()
        # 'scatter_add' and not 'index_add', whose export to ONNX drops links that end at one node.
        sums = blank.scatter_add(0, places, weights)
        weights = weights / sums.index_select(0, target)
        # Gathered anew, as in GATv2Conv: gradients are then summed in its order and equal, bit by bit.
        sent = senders.index_select(0, source) * weights[..., None]
        reached = torch.zeros_like(senders).scatter_add(0, target[:, None, None].expand_as(sent), sent)
        combined: torch.Tensor = reached.flatten(1) + self.bias
        return combined


def _draw_glorot(weights: torch.Tensor) -> None:
    bound = math.sqrt(6 / (weights.shape[-2] + weights.shape[-1]))
    weights.uniform_(-bound, bound)
