"""Classifier ``se-cnn``: channels weigh themselves, after Bukhari et al. (2022, doi:10.1155/2022/2801227)."""

from __future__ import annotations

from pathlib import Path

import torch
from leukokit import CropClassifier, NeuralParams
from pydantic import Field
from torch import nn
from torchvision.ops import SqueezeExcitation

from leukokit_zoo.weights import FOLDER

WIDTHS = (32, 64, 128, 256)
SQUEEZE = 16
"""Channels a value of the squeezed vector (Hu et al. 2018, doi:10.1109/CVPR.2018.00745)."""


class SeCnnParams(NeuralParams):
    """Parameters of the classifier ``se-cnn``."""

    weights: Path = Field(FOLDER / "se-cnn.safetensors", description="weight file")


class SeCnn(nn.Module):
    """Four stages of convolution, squeeze-and-excitation and pooling, and two dense layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = 3
        for width in WIDTHS:
            stages += [
                nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                SqueezeExcitation(width, max(width // SQUEEZE, 4)),
                nn.MaxPool2d(2),
            ]
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.Linear(inputs, 128), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(128, classes)
        )

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are ignored."""
        logits: torch.Tensor = self.head(self.stages(crops * 2 - 1).mean(dim=(2, 3)))
        return logits


class SeCnnClassifier(CropClassifier[SeCnnParams]):
    """A small CNN with squeeze-and-excitation after every convolution (Bukhari et al. 2022)."""

    name = "se-cnn"
    version = "0.1"
    summary = "small CNN with squeeze-and-excitation (after Bukhari et al. 2022)"
    architecture = "se-cnn"

    @staticmethod
    def new_network(classes: int) -> SeCnn:
        """The network, with random weights."""
        return SeCnn(classes)
