"""Numbers that compare predictions with the truth: intervals, bootstrap, calibration, matching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.metrics.calibration import fit_temperature as fit_temperature

_MODULES = {
    "fit_temperature": "calibration",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
