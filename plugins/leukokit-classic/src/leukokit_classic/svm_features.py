"""Classifier ``svm-features``: measured nuclei and a support vector machine, after Putzu et al. (2014)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from leukokit import CellGraph, Smear, TrainedClassifier, TrainedParams
from leukokit.crops import cut_crops
from leukokit.taxonomy import LEUKOCYTE
from pydantic import Field

from leukokit_classic.features import features
from leukokit_classic.svm import SupportVectorMachine
from leukokit_classic.weights import FOLDER


class SvmFeaturesParams(TrainedParams):
    """Parameters of the classifier ``svm-features``."""

    weights: Path = Field(FOLDER / "svm-features.safetensors", description="weight file")


class SvmFeaturesClassifier(TrainedClassifier[SvmFeaturesParams]):
    """Shape, colour and texture of a leukocyte, and an SVM (doi:10.1016/j.artmed.2014.09.002)."""

    name = "svm-features"
    version = "0.1"
    summary = "shape, colour, texture and an SVM (after Putzu et al. 2014)"
    api_version = "1.0"

    @cached_property
    def machine(self) -> SupportVectorMachine:
        """The support vector machine, loaded when first asked for.

        Raises:
            WeightsError: the file is damaged or holds something else.
        """
        return SupportVectorMachine.load(self.path)

    def classify(self, smears: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[npt.NDArray[np.float32]]:
        """Class probabilities of every node; see ``Classifier.classify``."""
        return [self._one(smear, graph) for smear, graph in zip(smears, graphs, strict=True)]

    def _one(self, smear: Smear, graph: CellGraph) -> npt.NDArray[np.float32]:
        probabilities = np.zeros((len(graph), len(self.classes)), dtype=np.float32)
        leukocytes = np.flatnonzero(graph.cells.kinds == LEUKOCYTE)
        if len(leukocytes):
            boxes = graph.cells.boxes[leukocytes]
            longest = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
            crops = cut_crops(smear, boxes, self.card.cover * longest, self.card.crop_px)
            figures = np.stack([features(crop, self.card.cover) for crop in crops])
            probabilities[leukocytes] = _softmax(self.machine.decision(figures) / self.card.temperature)
        return probabilities


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
