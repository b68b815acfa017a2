"""Classifier ``alexnet``: after Thanh et al. (2018), a network of AlexNet's kind trained from nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from leukokit import CropClassifier, NeuralParams
from pydantic import Field
from torch import nn
from torchvision.models import AlexNet

from leukokit_zoo.weights import FOLDER

HIDDEN = 128


class AlexNetParams(NeuralParams):
    """Parameters of the classifier ``alexnet``."""

    weights: Path = Field(FOLDER / "alexnet.safetensors", description="weight file")


class SmallAlexNet(nn.Module):
    """AlexNet's five convolutions as torchvision builds them, under a small head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = AlexNet(num_classes=classes).features
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(256, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, classes)
        )

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are ignored."""
        logits: torch.Tensor = self.head(self.features(crops * 2 - 1).mean(dim=(2, 3)))
        return logits


class AlexNetClassifier(CropClassifier[AlexNetParams]):
    """AlexNet's convolutions and two dense layers (Thanh et al. 2018)."""

    name = "alexnet"
    version = "0.1"
    summary = "AlexNet's convolutions under a small head (after Thanh et al. 2018)"
    architecture = "alexnet-small-head"

    @staticmethod
    def new_network(classes: int) -> SmallAlexNet:
        """The network, with random weights."""
        return SmallAlexNet(classes)
