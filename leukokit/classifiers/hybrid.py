"""Classifier ``hybrid``: the CNN's view of a leukocyte, corrected by the cells around it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit import weights
from leukokit.classifiers.cnn import CnnClassifier
from leukokit.classifiers.networks.context import context_arrays, join_graphs
from leukokit.classifiers.neural import (
    GraphedField,
    NeuralClassifier,
    NeuralParams,
    mean_over_views,
    parts_of,
)
from leukokit.config import PluginChoice
from leukokit.crops.appearance import appearance
from leukokit.engines.base import Model, Network
from leukokit.engines.choose import load
from leukokit.errors import WeightsError

HYBRID_INPUTS: Final = ("features", "embeddings", "edges", "edge_features")
HYBRID_OUTPUTS: Final = ("logits",)


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
    summary = "the CNN and a graph network (GATv2) over the cells around each leukocyte"

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

    @property
    def model(self) -> Model:
        """What an engine needs to know of the graph network."""
        path, card = self.path, self.card

        if path.suffix != ".safetensors":
            return Model.exported(path, (card.sha256, card.onnx_sha256), HYBRID_INPUTS, HYBRID_OUTPUTS)
        module = partial(_context_module, path, len(card.classes))
        return Model(
            path, HYBRID_INPUTS, HYBRID_OUTPUTS, weights.graph_of(path, card), card.onnx_sha256, module
        )

    @cached_property
    def cnn(self) -> Network:
        """The CNN on its engine, loaded when first asked for."""
        try:
            card = weights.read_card(self.cnn_path, weights.ClassifierCard, check=False)
        except WeightsError:
            # The hybrid's own card names and hashes it; one of the CNN's own need not be there.
            card = self.card.model_copy(update={"onnx_sha256": ""})
        model = CnnClassifier.model_of(self.cnn_path, card)
        return load(model, self.engine, self.device, self.threads)

    def logits(self, fields: Sequence[GraphedField]) -> npt.NDArray[np.float32]:
        """Logits (M, C); embeddings are the mean over the views."""
        appearances = [appearance(field.smear, field.graph.cells) for field in fields]
        crops = np.concatenate(
            [self.crops(field, own) for field, own in zip(fields, appearances, strict=True)]
        )
        found = [
            mean_over_views(self.cnn, "embeddings", crops[part], self.params.views)
            for part in parts_of(len(crops), self.batch)
        ]
        arrays, starts = join_graphs(
            [context_arrays(field.graph, own) for field, own in zip(fields, appearances, strict=True)]
        )
        nodes = np.concatenate([s.leukocytes + start for s, start in zip(fields, starts, strict=True)])
        embeddings = np.zeros((len(arrays.features), found[0].shape[1]), np.float32)
        embeddings[nodes] = np.concatenate(found)
        inputs = (arrays.features, embeddings, arrays.edges, arrays.edge_features)
        logits = self.network(dict(zip(HYBRID_INPUTS, inputs, strict=True)))["logits"]
        return np.asarray(logits[nodes], np.float32)


def _context_module(path: Path, classes: int) -> Any:
    from leukokit.classifiers.networks.modules import load_context_network

    return load_context_network(path, classes)


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
            f"{path}: needs the CNN {name!r}, which is not shipped; put its weights here, under that name"
        ) from error
    if weights.sha256_of(found) != named.get("sha256"):
        raise WeightsError(
            f"{found}: not the CNN that {path.name} was trained on (SHA-256 differs); keep the two together"
        )
    return found
