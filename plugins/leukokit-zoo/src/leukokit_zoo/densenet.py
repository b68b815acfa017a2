"""Classifier ``densenet``: DenseNet-121 at a smaller growth, after Sharma et al. (2022, retracted)."""

from __future__ import annotations

from pathlib import Path

import torch
from leukokit import CropClassifier, NeuralParams
from pydantic import Field
from torch import nn
from torchvision.models import DenseNet

from leukokit_zoo.weights import FOLDER

GROWTH = 12
"""Channels that a layer adds; DenseNet-121 has 32."""
BLOCKS = (6, 12, 24, 16)


class DenseNetParams(NeuralParams):
    """Parameters of the classifier ``densenet``."""

    weights: Path = Field(FOLDER / "densenet.safetensors", description="weight file")


class SmallDenseNet(nn.Module):
    """torchvision's DenseNet with the blocks of DenseNet-121 and a growth of 12."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = DenseNet(GROWTH, BLOCKS, num_init_features=2 * GROWTH, num_classes=classes)

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are ignored."""
        logits: torch.Tensor = self.network(crops * 2 - 1)
        return logits


class DenseNetClassifier(CropClassifier[DenseNetParams]):
    """DenseNet-121 with narrow layers (Sharma et al. 2022, a paper that its journal has retracted)."""

    name = "densenet"
    version = "0.1"
    summary = "narrow DenseNet-121 (after Sharma et al. 2022, retracted)"
    architecture = "densenet121-growth12"

    @staticmethod
    def new_network(classes: int) -> SmallDenseNet:
        """The network, with random weights."""
        return SmallDenseNet(classes)
