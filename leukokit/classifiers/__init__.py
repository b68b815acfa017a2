"""Classifiers: a label for every leukocyte of a cell graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.classifiers.base import Classifier as Classifier
    from leukokit.classifiers.neural import CropClassifier as CropClassifier
    from leukokit.classifiers.neural import NeuralClassifier as NeuralClassifier
    from leukokit.classifiers.neural import NeuralParams as NeuralParams
    from leukokit.classifiers.trained import TrainedClassifier as TrainedClassifier
    from leukokit.classifiers.trained import TrainedParams as TrainedParams

_MODULES = {
    "Classifier": "base",
    "CropClassifier": "neural",
    "NeuralClassifier": "neural",
    "NeuralParams": "neural",
    "TrainedClassifier": "trained",
    "TrainedParams": "trained",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
