"""Classifier ``sift-cnn``: a small CNN beside a bag of SIFT words, after Manthouri et al. (2022)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from leukokit import CropClassifier, NeuralParams
from pydantic import Field
from torch import nn

from leukokit_classic.sift_words import LENGTH, WORDS, histogram, load_words, sift
from leukokit_classic.weights import FOLDER

WIDTHS = (24, 48, 96, 128)


class SiftCnnParams(NeuralParams):
    """Parameters of the classifier ``sift-cnn``."""

    weights: Path = Field(FOLDER / "sift-cnn.safetensors", description="weight file")


class SiftCnn(nn.Module):
    """Four stages of convolution; their mean and a histogram of 64 visual words go to two dense layers."""

    words: torch.Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = 3
        for width in WIDTHS:
            stages += [
                nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.register_buffer("words", torch.zeros(WORDS, LENGTH))
        self.head = nn.Sequential(
            nn.Linear(inputs + WORDS, 128), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(128, classes)
        )

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, classes) of float32 RGB crops (B, 3, S, S) in 0..1; descriptors are ignored."""
        features = self.stages(crops * 2 - 1).mean(dim=(2, 3))
        logits: torch.Tensor = self.head(torch.cat([features, self.bags(crops)], dim=1))
        return logits

    @torch.no_grad()
    def bags(self, crops: torch.Tensor) -> torch.Tensor:
        """Histograms of visual words of crops, (B, 64) float32, on the crops' device."""
        pictures = (crops * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        words = self.words.float().cpu().numpy()
        bags = [histogram(sift(np.ascontiguousarray(picture)), words) for picture in pictures]
        return torch.from_numpy(np.stack(bags)).to(crops.device)


class SiftCnnClassifier(CropClassifier[SiftCnnParams]):
    """A CNN's features and SIFT's, in one set of dense layers (Manthouri et al. 2022)."""

    name = "sift-cnn"
    version = "0.1"
    summary = "small CNN beside a bag of SIFT words (after Manthouri et al. 2022)"
    api_version = "1.0"
    architecture = "sift-cnn"

    @staticmethod
    def new_network(classes: int) -> SiftCnn:
        """The network, with random weights and no words."""
        return SiftCnn(classes)

    @classmethod
    def initialize(cls, network: Any, descriptors: npt.NDArray[np.float32]) -> None:
        """Give the network the shipped visual words, which stay as they are."""
        network.words.copy_(torch.from_numpy(load_words()))
