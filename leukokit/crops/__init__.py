"""Crops of cells: how they are cut, and what their stain and size say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.crops.cut import REACH as REACH
    from leukokit.crops.cut import cut_crop as cut_crop
    from leukokit.crops.cut import cut_crops as cut_crops
    from leukokit.crops.cut import optical_density as optical_density

_MODULES = {
    "REACH": "cut",
    "cut_crop": "cut",
    "cut_crops": "cut",
    "optical_density": "cut",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
