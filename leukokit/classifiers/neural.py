"""What the built-in classifiers share: a network, and the crops of a field's leukocytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from typing_extensions import TypeVar

from leukokit import weights
from leukokit.classifiers.networks.context import context_features, descriptors
from leukokit.classifiers.trained import TrainedClassifier, TrainedParams
from leukokit.crops.appearance import appearance, erythrocyte_density
from leukokit.crops.cut import crop_sides, cut_crops
from leukokit.crops.stain import mix_stain, nucleus_map
from leukokit.engines.base import Model, Network
from leukokit.engines.choose import load
from leukokit.errors import WeightsError
from leukokit.graph import CellGraph
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE
from leukokit.weights import ClassifierCard

if TYPE_CHECKING:
    from torch import nn

DEFAULT_VIEWS = 4
"""Views that are averaged, also where temperature and review threshold are set."""


class NeuralParams(TrainedParams):
    """Parameters of the built-in classifiers."""

    views: int = Field(
        DEFAULT_VIEWS,
        ge=1,
        le=8,
        description="rotated and mirrored views of a crop, whose probabilities are averaged",
    )
    batch: int | None = Field(
        None, ge=1, description="crops per call of the network; by default 256 on a GPU, 16 on a CPU"
    )


@dataclass(frozen=True, slots=True)
class GraphedField:
    """A smear, the graph of its cells, and the (M,) int64 numbers of those that are leukocytes."""

    smear: Smear
    graph: CellGraph
    leukocytes: npt.NDArray[np.int64]


N_co = TypeVar("N_co", bound=NeuralParams, default=NeuralParams, covariant=True)


class NeuralClassifier(TrainedClassifier[N_co]):
    """A network with a card; a subclass defines the network and its inputs beside the crops."""

    @property
    @abstractmethod
    def model(self) -> Model:
        """What an engine needs to know of the network."""

    @abstractmethod
    def logits(self, fields: Sequence[GraphedField]) -> npt.NDArray[np.float32]:
        """Logits (M, C) of all leukocytes, field after field, before the temperature; M is not 0."""

    @cached_property
    def network(self) -> Network:
        """The network on its engine, loaded when first asked for.

        Raises:
            WeightsError: the file is damaged or of another architecture.
            ConfigError: the engine cannot run here.
        """
        return load(self.model, self.engine, self.device, self.threads)

    @property
    def engine_used(self) -> str:
        """Name and version of the engine that runs the network."""
        return self.network.engine

    @property
    def batch(self) -> int:
        """Crops shown to the network at once, each in all its views: on a CPU more only leave its caches."""
        pictures = self.params.batch or (256 if self.device.startswith("cuda") else 16)
        return max(1, pictures // int(self.params.views))

    def classify(self, smears: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[npt.NDArray[np.float32]]:
        """Class probabilities of every node; see ``Classifier.classify``."""
        predictions = [np.zeros((len(graph), len(self.classes)), dtype=np.float32) for graph in graphs]
        fields = [
            GraphedField(smear, graph, np.flatnonzero(graph.cells.kinds == LEUKOCYTE))
            for smear, graph in zip(smears, graphs, strict=True)
        ]
        counts = [len(field.leukocytes) for field in fields]
        if any(counts):
            logits = self.logits([field for field in fields if len(field.leukocytes)])
            probabilities = softmax(self._checked(logits, sum(counts)) / self.card.temperature)
            parts = np.split(probabilities, np.cumsum(counts)[:-1])
            for prediction, field, own in zip(predictions, fields, parts, strict=True):
                prediction[field.leukocytes] = own
        return predictions

    def _checked(self, logits: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        if logits.shape != (count, len(self.classes)):
            raise WeightsError(
                f"{self.path}: the network returns an array of shape {logits.shape} for {count} cells of "
                f"{len(self.classes)} classes; get the weights again"
            )
        return logits

    def crops(
        self, field: GraphedField, appearances: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.uint8]:
        """Crops of a field's leukocytes, (M, S, S, 3) uint8; ``appearances`` of its cells, where known."""
        card, cells, nodes = self.card, field.graph.cells, field.leukocytes
        boxes, sides = cells.boxes[nodes], crop_sides(cells, nodes, card.cover, card.unit)
        crops = cut_crops(field.smear, boxes, sides, card.crop_px)
        if card.nucleus:
            appearances = appearance(field.smear, cells) if appearances is None else appearances
            red = erythrocyte_density(appearances, cells)
            longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
            for number, crop in enumerate(crops):
                size = float(card.crop_px * longest[number] / sides[number])
                crops[number] = mix_stain(crop, nucleus_map(crop, size, red))
        return crops


class CropClassifier(NeuralClassifier[N_co]):
    """A classifier whose network uses the crop of each leukocyte; ``leukokit train classifier`` trains it.

    A subclass gives ``new_network`` and, as the default of its parameter ``weights``, a file. Its network
    takes crops, float32 (B, 3, S, S) RGB in 0..1, and in training the cells' context descriptors, float32
    (B, 64), and returns logits (B, classes).

    Attributes:
        architecture: what the card calls the network.
        required_crop_px: the one size of crops that the network takes; None where the recipe may choose.
        takes_descriptors: whether it is given the descriptors in use, too, and not in training alone.
        has_embeddings: whether it is a ``CropNetwork``, whose embeddings a hybrid takes.
    """

    architecture: ClassVar[str]
    required_crop_px: ClassVar[int | None] = None
    takes_descriptors: ClassVar[bool] = False
    has_embeddings: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def new_network(classes: int) -> nn.Module:
        """A network with random weights."""

    @classmethod
    def initialize(cls, network: Any, descriptors: npt.NDArray[np.float32]) -> None:
        """Give a network what it starts its training from.

        Args:
            network: as ``new_network`` makes it.
            descriptors: (N, 64) float32 of the cells that it is to be trained on.
        """

    @classmethod
    def frozen_parts(cls, network: Any, blocks: int) -> list[nn.Module]:
        """Parts that keep their weights in the training, where the recipe wants ``blocks`` of them frozen."""
        return []

    @property
    def model(self) -> Model:
        """What an engine needs to know of the network."""
        return self.model_of(self.path, self.card)

    @classmethod
    def model_of(cls, path: Path, card: ClassifierCard) -> Model:
        """What an engine needs to know of a weight file."""
        if path.suffix != ".safetensors":
            return Model.exported(path, (card.sha256, card.onnx_sha256), cls.inputs(), cls.outputs())
        module = partial(_crop_module, cls, path, len(card.classes))
        return Model(
            path, cls.inputs(), cls.outputs(), weights.graph_of(path, card), card.onnx_sha256, module
        )

    @classmethod
    def inputs(cls) -> tuple[str, ...]:
        """Names of what the network takes."""
        return ("crops", "descriptors") if cls.takes_descriptors else ("crops",)

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Names of what the network returns."""
        return ("embeddings", "logits") if cls.has_embeddings else ("logits",)

    def logits(self, fields: Sequence[GraphedField]) -> npt.NDArray[np.float32]:
        """Logits (M, C), the mean over the views."""
        crops, vectors = (np.concatenate(parts) for parts in zip(*map(self._inputs, fields), strict=True))
        parts = [
            mean_over_views(self.network, "logits", crops[part], self.params.views, vectors[part])
            for part in parts_of(len(crops), self.batch)
        ]
        return np.concatenate(parts)

    def _inputs(self, field: GraphedField) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """A field's crops (M, S, S, 3) uint8 and descriptors, float32 (M, 64); (M, 0) where not taken."""
        if not self.takes_descriptors:
            return self.crops(field, None), np.empty((len(field.leukocytes), 0), np.float32)
        appearances = appearance(field.smear, field.graph.cells)
        found = descriptors(field.graph, context_features(field.graph, appearances))
        return self.crops(field, appearances), found[field.leukocytes]


def _crop_module(classifier: type[CropClassifier[NeuralParams]], path: Path, classes: int) -> Any:
    from leukokit.classifiers.networks.modules import CropModule

    return CropModule(classifier, classes).load(path).for_speed()


def parts_of(count: int, size: int) -> list[slice]:
    """Slices of at most ``size`` that together are ``count`` long."""
    return [slice(start, start + size) for start in range(0, count, size)]


def mean_over_views(
    network: Network,
    output: str,
    crops: npt.NDArray[np.uint8],
    views: int,
    vectors: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """What a network says of crops (B, S, S, 3) uint8, the mean (B, K) over turned and mirrored views.

    Args:
        network: takes ``crops`` and, where ``vectors`` are not empty, ``descriptors``.
        output: the name of what is wanted.
        crops: the crops.
        views: how many of the eight views.
        vectors: (B, D) float32, the crops' descriptors.
    """
    # All views at once: a network gets through few pictures hardly faster than through many.
    inputs: dict[str, npt.NDArray[Any]] = {
        "crops": np.concatenate([turn_view(crops, view) for view in range(views)])
    }
    if vectors is not None and vectors.shape[1]:
        inputs["descriptors"] = np.tile(vectors, (views, 1))
    found = network(inputs)[output]
    return np.asarray(found.reshape(views, len(crops), -1).mean(axis=0), np.float32)


VIEWS: Final = (
    *((0, False), (2, True), (1, True), (3, False)),
    *((2, False), (0, True), (3, True), (1, False)),
)
"""Quarter turns, counted anticlockwise, after a mirror or not. Half turns and mirrored pictures come first:
few views are then as unlike as can be."""


def turn_view(crops: npt.NDArray[np.uint8], view: int) -> npt.NDArray[np.uint8]:
    """One of the eight turned and mirrored views of (B, S, S, C) crops; 0 is the crops themselves."""
    quarter, is_mirrored = VIEWS[view]
    mirrored = crops[:, :, ::-1] if is_mirrored else crops
    return np.rot90(mirrored, quarter, (1, 2))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities (M, C) of logits (M, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
