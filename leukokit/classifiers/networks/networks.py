"""The networks of the built-in classifiers: crops and context in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import nn

from leukokit.classifiers.networks.backbone import EMBEDDING, LITE0, EfficientNetLite, Stage
from leukokit.classifiers.networks.context import CONTEXT_FEATURES
from leukokit.graph import EDGE_FEATURES

ALTARAWNEH_PX: Final = 64
DESCRIPTOR_SIZE: Final = 64


class CropNetwork(nn.Module):
    """The baseline: a leukocyte's crop alone.

    Args:
        classes: number of outputs.
        dropout: share of an embedding that is left out in training.
        stages: of the backbone.
    """

    def __init__(self, classes: int, dropout: float = 0.2, stages: Sequence[Stage] = LITE0):
        super().__init__()
        self.backbone = EfficientNetLite(stages)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.backbone.width, classes))

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are not looked at."""
        logits: torch.Tensor = self.head(self.backbone(crops))
        return logits


class AltarawnehNetwork(nn.Module):
    """The network of the seed paper, layer by layer (Altarawneh 2023, IJRITCC 11(9)).

    Two 3x3 convolutions of 32 and 64 filters without padding, each with ReLU and a 2x2 maximum, flattened
    to 12,544; beside them a dense layer of 64 on a 64-vector; both joined into a dense layer of 128 and
    the output. With one output unit it has the paper's 1,637,633 parameters.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.vector = nn.Linear(DESCRIPTOR_SIZE, 64)
        self.joined = nn.Linear(64 * 14 * 14 + 64, 128)
        self.output = nn.Linear(128, outputs)
        # The paper says nothing of the vector's units: they are brought to mean 0 and deviation 1.
        self.register_buffer("mean", torch.zeros(DESCRIPTOR_SIZE))
        self.register_buffer("deviation", torch.ones(DESCRIPTOR_SIZE))

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor) -> torch.Tensor:
        """Logits (B, outputs) of RGB crops (B, 3, 64, 64) in 0..1 and descriptors (B, 64), both float32."""
        x = torch.max_pool2d(torch.relu(self.conv1(crops)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1)
        scaled = (descriptors - self.mean) / self.deviation
        v = torch.relu(self.vector(scaled.clamp(-5, 5)))
        y = torch.relu(self.joined(torch.cat([x, v], dim=1)))
        logits: torch.Tensor = self.output(y)
        return logits


class LinkAttention(nn.Module):
    """A layer of attention over links (GATv2, Brody et al. 2022, arXiv:2105.14491).

    It has the weights of ``torch_geometric.nn.GATv2Conv``, by which it is trained, and gives its answers, but
    does without the import of that package, which takes two seconds.
    """

    def __init__(self, inputs: int, outputs: int, heads: int = 4, *, edge_dim: int) -> None:
        super().__init__()
        self.shape = (-1, heads, outputs)
        self.lin_l = nn.Linear(inputs, heads * outputs)
        self.lin_r = nn.Linear(inputs, heads * outputs)
        self.lin_edge = nn.Linear(edge_dim, heads * outputs, bias=False)
        self.att = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, heads, outputs)))
        self.bias = nn.Parameter(torch.zeros(heads * outputs))

    def forward(self, nodes: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor) -> torch.Tensor:
        """What reaches each node, (N, heads * outputs): of (N, inputs), (2, 2E) int64, (2E, edge_dim)."""
        source, target = edge_index
        sent = self.lin_l(nodes).view(self.shape)[source]
        mixed = sent + self.lin_r(nodes).view(self.shape)[target] + self.lin_edge(edge_attr).view(self.shape)
        scores = (nn.functional.leaky_relu(mixed, 0.2) * self.att).sum(dim=-1)
        places = target[:, None].expand_as(scores)
        blank = scores.new_zeros(len(nodes), scores.shape[1])
        # A softmax over the links that end at a node; without the largest score it cannot overflow.
        largest = blank.scatter_reduce(0, places, scores.detach(), "amax", include_self=False)
        weights = (scores - largest[target]).exp()
        weights = weights / blank.index_add(0, target, weights)[target]
        reached = sent.new_zeros(len(nodes), *sent.shape[1:])
        reached = reached.index_add(0, target, sent * weights[..., None])
        answer: torch.Tensor = reached.flatten(1) + self.bias
        return answer


class ContextNetwork(nn.Module):
    """The hybrid's second half: what a CNN sees of the leukocytes, passed on among the cells of a graph.

    Every node starts from its geometry and colours, a leukocyte from its crop's embedding as well.
    Attention over the links mixes them, each layer added to what was there, so that a cell without links
    is judged by itself.

    Args:
        classes: number of outputs.
        link: a layer of the signature and the weights of ``LinkAttention``.
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
        link: Callable[..., nn.Module] = LinkAttention,
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
            link(width, width // heads, heads, edge_dim=len(EDGE_FEATURES)) for _ in range(layers)
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
