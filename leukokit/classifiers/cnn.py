"""Classifier ``cnn``: the baseline, which looks at a leukocyte's crop and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from leukokit.classifiers.loaded import LoadedClassifier, LoadedParams, in_views
from leukokit.classifiers.networks import CropNetwork
from leukokit.graph import CellGraph
from leukokit.smear import Smear


class CnnParams(LoadedParams):
    """Parameters of the classifier ``cnn``."""

    weights: Path = Field(Path("leukocyte-cnn"), description="name of shipped weights, or a weight file")


class CnnClassifier(LoadedClassifier):
    """EfficientNet-Lite0 on crops of each leukocyte, averaged over turned and mirrored views."""

    name = "cnn"
    version = "1.0"
    summary = "convolutional network on each leukocyte's crop (EfficientNet-Lite0); the baseline"
    Params = CnnParams

    def build(self) -> CropNetwork:
        """The network, with random weights."""
        return CropNetwork(len(self.classes))

    def logits(self, smear: Smear, graph: CellGraph, leukocytes: npt.NDArray[np.int64]) -> torch.Tensor:
        """Logits (M, C), the mean over the views."""
        crops = self.crops(smear, graph, leukocytes, None)
        return torch.cat([self._batch(part) for part in torch.split(crops, self.batch)])

    def _batch(self, crops: torch.Tensor) -> torch.Tensor:
        return in_views(self.network, crops, self.params.views, self.device)
