"""Classifier ``wbcsnet``: after Baghel et al. (2022, doi:10.1007/s11042-021-11449-z), a plain small CNN."""

from __future__ import annotations

from pathlib import Path

import torch
from leukokit import CropClassifier, NeuralParams
from pydantic import Field
from torch import nn

from leukokit_zoo.weights import FOLDER

WIDTHS = (32, 64, 128)
GRID = 4
"""Side of the last map, in cells, that the dense layers see."""


class WbcsNetParams(NeuralParams):
    """Parameters of the classifier ``wbcsnet``."""

    weights: Path = Field(FOLDER / "wbcsnet.safetensors", description="weight file")


class WbcsNet(nn.Module):
    """Three stages of convolution, normalisation and pooling, and two dense layers on the flattened map."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = 3
        for width in WIDTHS:
            stages += [
                nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            inputs = width
        self.stages = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(GRID), nn.Flatten())
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(inputs * GRID**2, 128), nn.ReLU(inplace=True), nn.Linear(128, classes)
        )

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are ignored."""
        logits: torch.Tensor = self.head(self.stages(crops * 2 - 1))
        return logits


class WbcsNetClassifier(CropClassifier[WbcsNetParams]):
    """Convolutions, pooling and dense layers, no more (Baghel et al. 2022)."""

    name = "wbcsnet"
    version = "0.1"
    summary = "plain small CNN (after WBCs-Net, Baghel et al. 2022)"
    architecture = "wbcsnet"

    @staticmethod
    def new_network(classes: int) -> WbcsNet:
        """The network, with random weights."""
        return WbcsNet(classes)
