"""How well detectors, classifiers and whole pipelines do on annotated data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.evaluation.classification import evaluate_classifier
    from leukokit.evaluation.detection import evaluate_detector
    from leukokit.evaluation.end_to_end import evaluate_pipeline

__all__ = ["evaluate_classifier", "evaluate_detector", "evaluate_pipeline"]

_MODULES = {
    "evaluate_classifier": "classification",
    "evaluate_detector": "detection",
    "evaluate_pipeline": "end_to_end",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
