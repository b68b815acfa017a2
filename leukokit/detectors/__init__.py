"""Detectors: plugins that find the cells of fields of view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.detectors.base import Detector as Detector
    from leukokit.detectors.base import DetectorParams as DetectorParams
    from leukokit.detectors.yolo.detector import YoloDetector as YoloDetector
    from leukokit.detectors.yolo.detector import YoloParams as YoloParams

_MODULES = {
    "Detector": "base",
    "DetectorParams": "base",
    "YoloDetector": "yolo.detector",
    "YoloParams": "yolo.detector",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
