"""How well detectors, classifiers and whole pipelines do on annotated data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
