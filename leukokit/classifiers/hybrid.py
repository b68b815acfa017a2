"""Classifier ``hybrid``: the CNN's view of a leukocyte, corrected by the cells around it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from leukokit import weights
from leukokit.classifiers.networks.context import context_tensors, side_by_side
from leukokit.classifiers.networks.context_network import ContextNetwork
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.classifiers.neural import NeuralClassifier, NeuralParams, Scene, mean_over_views, ready
from leukokit.config import PluginChoice
from leukokit.crops.appearance import appearance
from leukokit.errors import WeightsError


class HybridParams(NeuralParams):
    """Parameters of the classifier ``hybrid``."""

    weights: Path = Field(Path("leukocyte-hybrid"), description="name of shipped weights, or a weight file")


class HybridClassifier(NeuralClassifier[HybridParams]):
    """A graph network over all cells; its leukocytes bring the embedding of the classifier ``cnn``.

    The weight file holds the graph network alone. The CNN is the one that the card names: a file of that
    name beside the card, or else of the shipped weights.

    Raises:
        WeightsError: also where that CNN is not there, or is another than the graph network was trained on.
    """

    name = "hybrid"
    version = "1.0"
    summary = "the CNN's embedding and the cells around, through a graph network (GATv2)"

    def __init__(self, params: HybridParams | None = None, device: str = "cpu") -> None:
        super().__init__(params, device)
        self.cnn_path = find_cnn(self.path, self.card.cnn)

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The graph network's file and the CNN's."""
        return (self.path, self.cnn_path)

    @property
    def trained_graph(self) -> PluginChoice | None:
        """The card's graph builder."""
        return self.card_graph

    def build(self) -> ContextNetwork:
        """The graph network, with random weights."""
        return ContextNetwork(len(self.classes))

    @cached_property
    def cnn(self) -> CropNetwork:
        """The CNN in evaluation mode, loaded when first asked for."""
        return ready(CropNetwork(len(self.classes)), self.cnn_path, self.device)

    def logits(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Logits (M, C); embeddings are the mean over the views."""
        looks = [appearance(scene.smear, scene.graph.cells) for scene in scenes]
        crops = torch.cat([self.crops(scene, own) for scene, own in zip(scenes, looks, strict=True)])
        found = [embedded(self.cnn, part, self.params.views) for part in torch.split(crops, self.batch)]
        graphs = [context_tensors(scene.graph, own) for scene, own in zip(scenes, looks, strict=True)]
        batch = side_by_side(graphs).to(self.device)
        features, edges, figures = batch.tensors
        nodes = np.concatenate([s.leukocytes + start for s, start in zip(scenes, batch.starts, strict=True)])
        embeddings = features.new_zeros(len(features), found[0].shape[1])
        embeddings[nodes] = torch.cat(found)
        answers: torch.Tensor = self.network(features, embeddings, edges, figures)
        return answers[nodes]


def embedded(cnn: CropNetwork, crops: torch.Tensor, views: int) -> torch.Tensor:
    """Embeddings (B, E) of crops (B, 3, S, S) uint8, the mean over the turned views."""
    device = next(cnn.parameters()).device
    return mean_over_views(cnn.backbone, crops, views, device)


def find_cnn(path: Path, named: dict[str, str]) -> Path:
    """The CNN's weight file that a hybrid's card names.

    Raises:
        WeightsError: the card names none, the file is not there, or is another of that name.
    """
    name = named.get("name", "")
    if not name:
        raise WeightsError(f"{path}: its card names no CNN; these are not weights of 'hybrid'")
    beside = path.parent / f"{name}.safetensors"
    try:
        found = beside if beside.is_file() else weights.find(name)
    except WeightsError as error:
        raise WeightsError(
            f"{path}: stands on the CNN {name!r}, which is not shipped; put its weights beside, of that name"
        ) from error
    if weights.sha256_of(found) != named.get("sha256"):
        raise WeightsError(
            f"{found}: not the CNN that {path.name} was trained on (SHA-256 differs); keep the two together"
        )
    return found
