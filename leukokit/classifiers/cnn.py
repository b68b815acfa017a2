"""Classifier ``cnn``: a network on the crop of each leukocyte alone; the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit.classifiers.neural import CropClassifier, NeuralParams

if TYPE_CHECKING:
    from torch import nn

    from leukokit.classifiers.networks.crop_network import CropNetwork


class CnnParams(NeuralParams):
    """Parameters of the classifier ``cnn``."""

    weights: Path = Field(Path("leukocyte-cnn"), description="name of shipped weights, or a weight file")


class CnnClassifier(CropClassifier[CnnParams]):
    """EfficientNet-Lite0 on crops of each leukocyte, averaged over turned and mirrored views."""

    name = "cnn"
    version = "1.0"
    summary = "convolutional network (EfficientNet-Lite0) on the crop of each leukocyte"

    architecture = "efficientnet-lite0"
    has_embeddings = True

    @staticmethod
    def new_network(classes: int) -> CropNetwork:
        """The network, with random weights."""
        from leukokit.classifiers.networks.crop_network import CropNetwork

        return CropNetwork(classes)

    @classmethod
    def initialize(cls, network: CropNetwork, descriptors: npt.NDArray[np.float32]) -> None:
        """Take the published ImageNet weights.

        Raises:
            WeightsError: the package that carries them is not installed.
        """
        network.backbone.load_imagenet()

    @classmethod
    def frozen_parts(cls, network: CropNetwork, blocks: int) -> list[nn.Module]:
        """The stem and the first blocks; none for 0."""
        return [network.backbone.stem, *network.backbone.blocks[:blocks]] if blocks else []
