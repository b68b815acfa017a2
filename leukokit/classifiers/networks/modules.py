"""The classifiers' networks as torch modules on crops as they are in memory, to run or to be exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from leukokit import weights
from leukokit.classifiers.networks.altarawneh import DESCRIPTOR_SIZE
from leukokit.classifiers.networks.backbone import EMBEDDING, EfficientNetLite
from leukokit.classifiers.networks.context import CONTEXT_FEATURES
from leukokit.classifiers.networks.context_network import ContextNetwork
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.classifiers.neural import VIEWS
from leukokit.engines.export import Example, Exportable, write_graph_beside
from leukokit.graph import EDGE_FEATURES
from leukokit.weights import ClassifierCard
from leukokit.weights.files import load_weights

if TYPE_CHECKING:
    from leukokit.classifiers.neural import CropClassifier, NeuralParams

CELL_AXIS: Final = {0: "cells"}
"""Name of the side that may have any length."""


class CropModule(nn.Module):
    """A classifier's network on crops.

    uint8 (B, S, S, 3) RGB and, where the classifier takes them, descriptors, float32 (B, 64), to what the
    classifier's ``outputs`` name: logits, float32 (B, classes), and embeddings, float32 (B, E).

    Args:
        classifier: whose network it is.
        classes: number of outputs.
    """

    def __init__(self, classifier: type[CropClassifier[NeuralParams]], classes: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.network = classifier.new_network(classes)

    def forward(
        self, crops: torch.Tensor, descriptors: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Run the network."""
        pictures = to_input(crops.permute(0, 3, 1, 2), crops.device)
        if self.classifier.has_embeddings:
            embeddings = self.network.get_submodule("backbone")(pictures)
            return embeddings, self.network.get_submodule("head")(embeddings)
        beside = (descriptors,) if self.classifier.takes_descriptors else ()
        logits: torch.Tensor = self.network(pictures, *beside)
        return logits

    def load(self, path: Path) -> CropModule:
        """Take the weights of a file.

        Raises:
            WeightsError: the file is damaged or of another architecture.
        """
        load_weights(self.network, path)
        return self.eval()

    def for_speed(self) -> CropModule:
        """Work normalisations into the convolutions before them; for torch alone."""
        self.network.to(memory_format=torch.channels_last)
        for module in self.network.modules():
            if isinstance(module, EfficientNetLite):
                module.fuse()
        return self


def load_context_network(path: Path, classes: int) -> ContextNetwork:
    """The graph network of a hybrid's weight file.

    Raises:
        WeightsError: the file is damaged or of another architecture.
    """
    network = ContextNetwork(classes)
    load_weights(network, path)
    return network.eval()


@torch.inference_mode()
def mean_embeddings(network: CropNetwork, crops: torch.Tensor, views: int) -> torch.Tensor:
    """Embeddings (B, E) of crops (B, 3, S, S) uint8, the mean over the turned views."""
    device = next(network.parameters()).device
    pictures = to_input(torch.cat([turned_tensor(crops, view) for view in range(views)]), device)
    found: torch.Tensor = network.backbone(pictures)
    return found.view(views, len(crops), -1).mean(dim=0)


def turned_tensor(crops: torch.Tensor, view: int) -> torch.Tensor:
    """One of the eight turned and mirrored views of (B, C, S, S) crops; 0 is the crops themselves."""
    quarter, is_mirrored = VIEWS[view]
    mirrored = crops.flip(3) if is_mirrored else crops
    return mirrored.rot90(quarter, (2, 3)) if quarter else mirrored


def to_input(crops: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Crops (B, 3, S, S) uint8 as a network takes them: float32 in 0..1."""
    return crops.to(device).contiguous(memory_format=torch.channels_last).float() / 255


def crop_exportable(
    classifier: type[CropClassifier[NeuralParams]], path: Path, card: ClassifierCard
) -> Exportable:
    """The network of a crop classifier's weight file as an export needs it."""
    side, classes = card.crop_px, len(card.classes)
    inputs = [Example("crops", torch.zeros(2, side, side, 3, dtype=torch.uint8), CELL_AXIS)]
    if classifier.takes_descriptors:
        inputs.append(Example("descriptors", torch.zeros(2, DESCRIPTOR_SIZE), CELL_AXIS))
    module, fused = (CropModule(classifier, classes).load(path) for _ in range(2))
    return Exportable(module, fused.for_speed(), inputs, dict.fromkeys(classifier.outputs(), CELL_AXIS))


def context_exportable(path: Path, card: ClassifierCard) -> Exportable:
    """The graph network of a hybrid's weight file as an export needs it."""
    links = {0: "links"}
    inputs = [
        Example("features", torch.zeros(3, len(CONTEXT_FEATURES)), CELL_AXIS),
        Example("embeddings", torch.zeros(3, EMBEDDING), CELL_AXIS),
        Example("edges", torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), {1: "links"}),
        Example("edge_features", torch.zeros(4, len(EDGE_FEATURES)), links),
    ]
    module = load_context_network(path, len(card.classes))
    return Exportable(module, module, inputs, {"logits": CELL_AXIS})


def write_crop_graph(classifier: type[CropClassifier[NeuralParams]], path: Path) -> None:
    """Write the ONNX graph of a crop classifier's weight file beside it, and its hash into the card.

    Raises:
        WeightsError: the file has no card, is damaged, or cannot be exported.
    """
    card = weights.read_card(path, ClassifierCard)
    weights.record_graph(path, write_graph_beside(crop_exportable(classifier, path, card), path))


def write_context_graph(path: Path) -> None:
    """Write the ONNX graph of a hybrid's weight file beside it, and its hash into the card.

    Raises:
        WeightsError: the file has no card, is damaged, or cannot be exported.
    """
    card = weights.read_card(path, ClassifierCard)
    weights.record_graph(path, write_graph_beside(context_exportable(path, card), path))
