"""What the built-in classifiers share: a network, and the crops of a field's leukocytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn
from typing_extensions import TypeVar

from leukokit.classifiers.networks.backbone import EfficientNetLite
from leukokit.classifiers.trained import TrainedClassifier, TrainedParams
from leukokit.crops.appearance import appearance, erythrocyte_density
from leukokit.crops.cut import crop_sides, cut_crops
from leukokit.crops.stain import mix_stain, nucleus_map
from leukokit.graph import CellGraph
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE
from leukokit.weights.files import load_weights

N = TypeVar("N", bound=nn.Module)
DEFAULT_VIEWS = 4
"""Views that are averaged, also where temperature and review threshold are set."""


class NeuralParams(TrainedParams):
    """Parameters of the built-in classifiers."""

    views: int = Field(
        DEFAULT_VIEWS, ge=1, le=8, description="turned and mirrored views of a crop that are averaged"
    )
    batch: int | None = Field(
        None, ge=1, description="pictures shown to the network at once; by default 256 on a GPU, 16 on a CPU"
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """A smear, the graph of its cells, and the (M,) int64 numbers of those that are leukocytes."""

    smear: Smear
    graph: CellGraph
    leukocytes: npt.NDArray[np.int64]


N_co = TypeVar("N_co", bound=NeuralParams, default=NeuralParams, covariant=True)


class NeuralClassifier(TrainedClassifier[N_co]):
    """A network with a card; a subclass says which, and what it is shown beside the crops."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, with random weights."""

    @abstractmethod
    def logits(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Logits (M, C) of all leukocytes, scene after scene, before the temperature; M is not 0."""

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation mode, loaded when first asked for.

        Raises:
            WeightsError: the file is damaged or of another architecture.
        """
        return ready(self.build(), self.path, self.device)

    @property
    def batch(self) -> int:
        """Crops shown to the network at once, each in all its views: on a CPU more only leave its caches."""
        pictures = self.params.batch or (256 if self.device.startswith("cuda") else 16)
        return max(1, pictures // int(self.params.views))

    @torch.inference_mode()
    def classify(self, smears: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[npt.NDArray[np.float32]]:
        """Class probabilities of every node; see ``Classifier.classify``."""
        answers = [np.zeros((len(graph), len(self.classes)), dtype=np.float32) for graph in graphs]
        scenes = [
            Scene(smear, graph, np.flatnonzero(graph.cells.kinds == LEUKOCYTE))
            for smear, graph in zip(smears, graphs, strict=True)
        ]
        counts = [len(scene.leukocytes) for scene in scenes]
        if any(counts):
            logits = self.logits([scene for scene in scenes if len(scene.leukocytes)])
            chances = torch.softmax(logits / self.card.temperature, dim=1).cpu()
            for answer, scene, own in zip(answers, scenes, torch.split(chances, counts), strict=True):
                answer[scene.leukocytes] = own.numpy()
        return answers

    def crops(self, scene: Scene, looks: npt.NDArray[np.float32] | None) -> torch.Tensor:
        """Crops of a scene's leukocytes, (M, 3, S, S) uint8; ``looks`` are its appearance where known."""
        card, cells, nodes = self.card, scene.graph.cells, scene.leukocytes
        boxes, sides = cells.boxes[nodes], crop_sides(cells, nodes, card.cover, card.unit)
        crops = cut_crops(scene.smear, boxes, sides, card.crop_px)
        if card.nucleus:
            looks = appearance(scene.smear, cells) if looks is None else looks
            red = erythrocyte_density(looks, cells)
            longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
            for number, crop in enumerate(crops):
                size = float(card.crop_px * longest[number] / sides[number])
                crops[number] = mix_stain(crop, nucleus_map(crop, size, red))
        return torch.from_numpy(crops).permute(0, 3, 1, 2)


class CropClassifier(NeuralClassifier[N_co]):
    """A classifier whose network looks at each leukocyte's crop; ``leukokit train classifier`` trains it.

    A subclass gives ``new_network`` and, as the default of its parameter ``weights``, a file. Its network
    takes crops, float32 (B, 3, S, S) RGB in 0..1, and in training the cells' context descriptors, float32
    (B, 64), and answers with logits (B, classes). One that needs the descriptors overrides ``logits``.

    Attributes:
        architecture: what the card calls the network.
        required_crop_px: the one size of crops that the network takes; None where the recipe may choose.
    """

    architecture: ClassVar[str]
    required_crop_px: ClassVar[int | None] = None

    @staticmethod
    @abstractmethod
    def new_network(classes: int) -> nn.Module:
        """A network with random weights."""

    @classmethod
    def begin(cls, network: Any, descriptors: npt.NDArray[np.float32]) -> None:
        """Give a network what it starts its training from.

        Args:
            network: as ``new_network`` makes it.
            descriptors: (N, 64) float32 of the cells that it is to be trained on.
        """

    @classmethod
    def frozen_parts(cls, network: Any, blocks: int) -> list[nn.Module]:
        """Parts that keep their weights in the training, where the recipe wants ``blocks`` of them frozen."""
        return []

    def build(self) -> nn.Module:
        """The network, with random weights."""
        return self.new_network(len(self.classes))

    def logits(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Logits (M, C), the mean over the views."""
        crops = torch.cat([self.crops(scene, None) for scene in scenes])
        return torch.cat([self._answer(part) for part in torch.split(crops, self.batch)])

    def _answer(self, crops: torch.Tensor) -> torch.Tensor:
        return mean_over_views(self.network, crops, self.params.views, self.device)


def ready(network: N, path: Path, device: str) -> N:
    """A network with its weights, on its device, in evaluation mode, made as fast as it can be.

    Raises:
        WeightsError: the file is damaged or of another architecture.
    """
    load_weights(network, path)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    for module in network.modules():
        if isinstance(module, EfficientNetLite):
            module.fuse()
    return network


def mean_over_views(
    network: Callable[[torch.Tensor], torch.Tensor],
    crops: torch.Tensor,
    views: int,
    device: str | torch.device,
) -> torch.Tensor:
    """What a network says of crops (B, 3, S, S) uint8, the mean (B, K) over turned and mirrored views."""
    # All views at once: a network gets through few pictures hardly faster than through many.
    pictures = to_input(torch.cat([turned(crops, view) for view in range(views)]), device)
    return network(pictures).view(views, len(crops), -1).mean(dim=0)


def turned(crops: torch.Tensor, view: int) -> torch.Tensor:
    """One of the eight turned and mirrored views of (B, C, S, S) crops; 0 is the crops themselves."""
    # Half turns and mirrored pictures first: few views are then as unlike as can be.
    quarter, mirrored = ((0, False), (2, True), (1, True), (3, False), (2, False), (0, True), (3, True),
                         (1, False))[view]  # fmt: skip
    if mirrored:
        crops = crops.flip(3)
    return crops.rot90(quarter, (2, 3)) if quarter else crops


def to_input(crops: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Crops (B, 3, S, S) uint8 as a network takes them: float32 in 0..1."""
    return crops.to(device).contiguous(memory_format=torch.channels_last).float() / 255
