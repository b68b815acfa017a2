"""Classifier ``altarawneh``: the network of the seed paper, to the letter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from leukokit.classifiers.networks.altarawneh import ALTARAWNEH_PX, AltarawnehNetwork
from leukokit.classifiers.networks.context import context_features, descriptors
from leukokit.classifiers.neural import CropClassifier, NeuralParams, Scene, mean_over_views
from leukokit.config import PluginChoice
from leukokit.crops.appearance import appearance


class AltarawnehParams(NeuralParams):
    """Parameters of the classifier ``altarawneh``."""

    weights: Path = Field(
        Path("leukocyte-altarawneh"), description="name of shipped weights, or a weight file"
    )


class AltarawnehClassifier(CropClassifier[AltarawnehParams]):
    """Two convolutions beside a dense layer on the cell's context descriptor (Altarawneh 2023)."""

    name = "altarawneh"
    version = "1.0"
    summary = "the seed paper's small CNN beside a 64-vector, which here is the cell's graph context"

    architecture = "altarawneh"
    required_crop_px = ALTARAWNEH_PX

    @staticmethod
    def new_network(classes: int) -> AltarawnehNetwork:
        """The network, with random weights."""
        return AltarawnehNetwork(classes)

    @classmethod
    def begin(cls, network: AltarawnehNetwork, descriptors: npt.NDArray[np.float32]) -> None:
        """Tell the network the scale of the descriptors."""
        network.mean.copy_(torch.from_numpy(descriptors.mean(axis=0)))
        network.deviation.copy_(torch.from_numpy(descriptors.std(axis=0) + 1e-3))

    @property
    def trained_graph(self) -> PluginChoice | None:
        """The card's graph builder."""
        return self.card_graph

    def logits(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Logits (M, C), the mean over the views."""
        crops, vectors = (torch.cat(parts) for parts in zip(*map(self._inputs, scenes), strict=True))
        parts = zip(
            torch.split(crops, self.batch), torch.split(vectors.to(self.device), self.batch), strict=True
        )
        return torch.cat([self._batch(part, vector) for part, vector in parts])

    def _inputs(self, scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
        """A scene's crops (M, 3, S, S) uint8 and descriptors (M, 64) float32."""
        looks = appearance(scene.smear, scene.graph.cells)
        found = descriptors(scene.graph, context_features(scene.graph, looks))
        return self.crops(scene, looks), torch.from_numpy(found[scene.leukocytes])

    def _batch(self, crops: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        views = self.params.views
        beside = vectors.repeat(views, 1)
        return mean_over_views(lambda seen: self.network(seen, beside), crops, views, self.device)
