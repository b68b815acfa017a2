"""Classifier ``altarawneh``: the network of the seed paper, to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit.classifiers.neural import CropClassifier, NeuralParams
from leukokit.config import PluginChoice

if TYPE_CHECKING:
    from leukokit.classifiers.networks.altarawneh import AltarawnehNetwork


class AltarawnehParams(NeuralParams):
    """Parameters of the classifier ``altarawneh``."""

    weights: Path = Field(
        Path("leukocyte-altarawneh"), description="name of shipped weights, or a weight file"
    )


class AltarawnehClassifier(CropClassifier[AltarawnehParams]):
    """Two convolutions beside a dense layer on the cell's context descriptor (Altarawneh 2023)."""

    name = "altarawneh"
    version = "1.0"
    summary = "network of Altarawneh (2023): a small CNN and 64 numbers about the cell's context"

    architecture = "altarawneh"
    required_crop_px = 64
    takes_descriptors = True

    @staticmethod
    def new_network(classes: int) -> AltarawnehNetwork:
        """The network, with random weights."""
        from leukokit.classifiers.networks.altarawneh import AltarawnehNetwork

        return AltarawnehNetwork(classes)

    @classmethod
    def initialize(cls, network: AltarawnehNetwork, descriptors: npt.NDArray[np.float32]) -> None:
        """Tell the network the scale of the descriptors."""
        import torch

        network.mean.copy_(torch.from_numpy(descriptors.mean(axis=0)))
        network.deviation.copy_(torch.from_numpy(descriptors.std(axis=0) + 1e-3))

    @property
    def trained_graph(self) -> PluginChoice | None:
        """The card's graph builder."""
        return self.card_graph
