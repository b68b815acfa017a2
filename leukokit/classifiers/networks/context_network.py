"""The graph network of the classifier ``hybrid``."""

from __future__ import annotations

import torch
from torch import nn

from leukokit.classifiers.networks.backbone import EMBEDDING
from leukokit.classifiers.networks.context import CONTEXT_FEATURES
from leukokit.classifiers.networks.graph_attention import GraphAttention
from leukokit.graph import EDGE_FEATURES


class ContextNetwork(nn.Module):
    """The hybrid's second half: what a CNN sees of the leukocytes, passed on among the cells of a graph.

    Every node starts from its geometry and colours, a leukocyte from its crop's embedding as well.
    Attention over the links mixes them, each layer added to what was there, so that a cell without links
    is judged by itself.

    Args:
        classes: number of outputs.
        width: figures of a node between the layers.
        layers: layers of attention.
        heads: heads of each.
        embedding: length of the CNN's embeddings.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        classes: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        embedding: int = EMBEDDING,
    ):
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(CONTEXT_FEATURES)))
        self.register_buffer("deviation", torch.ones(len(CONTEXT_FEATURES)))
        self.cell = nn.Linear(len(CONTEXT_FEATURES), width)
        self.picture = nn.Sequential(nn.Dropout(0.5), nn.Linear(embedding, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.links = nn.ModuleList(
            GraphAttention(width, width // heads, heads, edge_dim=len(EDGE_FEATURES)) for _ in range(layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.3), nn.Linear(width, classes))

    def forward(
        self,
        features: torch.Tensor,
        embeddings: torch.Tensor,
        edge_index: torch.Tensor,
        edge_attr: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of every node, (N, classes) float32.

        Args:
            features: (N, 21) float32, columns as ``context.CONTEXT_FEATURES``.
            embeddings: (N, embedding) float32 of the CNN; zeros where a node has no crop.
            edge_index: (2, 2E) int64, both directions.
            edge_attr: (2E, 2) float32, columns as ``graph.EDGE_FEATURES``.
        """
        scaled = ((features - self.mean) / self.deviation).clamp(-5, 5)
        x = torch.relu(self.cell(scaled) + self.picture(embeddings))
        for norm, link in zip(self.norms, self.links, strict=True):
            x = x + torch.relu(link(norm(x), edge_index, edge_attr))
        logits: torch.Tensor = self.head(x)
        return logits
