"""Classifier ``vgg-features``: a VGG16 made for leukocytes, after LeuFeatx (Rastogi et al. 2022)."""

from __future__ import annotations

from pathlib import Path

import torch
from leukokit import CropClassifier, NeuralParams
from pydantic import Field
from torch import nn
from torchvision.models.vgg import make_layers

from leukokit_zoo.weights import FOLDER

LAYERS: list[str | int] = [
    *(16, 16, "M", 32, 32, "M", 64, 64, 64, "M", 128, 128, 128, "M", 128, 128, 128, "M")
]
"""VGG16's thirteen convolutions at a quarter of their widths; ``M`` is a maximum over 2x2."""
FEATURES = 128


class VggFeaturesParams(NeuralParams):
    """Parameters of the classifier ``vgg-features``."""

    weights: Path = Field(FOLDER / "vgg-features.safetensors", description="weight file")


class VggFeatures(nn.Module):
    """A quarter-width VGG16 with normalisation; features of the cell, and a linear layer that names it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = make_layers(LAYERS, batch_norm=True)
        self.features = nn.Sequential(nn.Linear(128, FEATURES), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are ignored."""
        logits: torch.Tensor = self.head(self.features(self.stages(crops * 2 - 1).mean(dim=(2, 3))))
        return logits


class VggFeaturesClassifier(CropClassifier[VggFeaturesParams]):
    """A VGG16 of a quarter of the width, trained on leukocytes, as an extractor of features."""

    name = "vgg-features"
    version = "0.1"
    summary = "features of a narrow VGG16 (after LeuFeatx, Rastogi et al. 2022)"
    architecture = "vgg16-quarter"

    @staticmethod
    def new_network(classes: int) -> VggFeatures:
        """The network, with random weights."""
        return VggFeatures(classes)
