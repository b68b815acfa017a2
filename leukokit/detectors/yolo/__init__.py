"""The built-in detector: a YOLO network that sees each field at one size of erythrocyte, tiled if need be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.detectors.yolo.detector import DEFAULT_WEIGHTS as DEFAULT_WEIGHTS
    from leukokit.detectors.yolo.detector import YoloDetector as YoloDetector
    from leukokit.detectors.yolo.detector import YoloParams as YoloParams
    from leukokit.detectors.yolo.network import YoloModel as YoloModel
    from leukokit.detectors.yolo.network import layout_of as layout_of

_MODULES = {
    "DEFAULT_WEIGHTS": "detector",
    "YoloDetector": "detector",
    "YoloModel": "network",
    "YoloParams": "detector",
    "layout_of": "network",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
