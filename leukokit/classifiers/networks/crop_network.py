"""The network of the classifier ``cnn``: a leukocyte's crop alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from leukokit.classifiers.networks.backbone import LITE0, EfficientNetLite, Stage


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
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are ignored."""
        logits: torch.Tensor = self.head(self.backbone(crops))
        return logits
