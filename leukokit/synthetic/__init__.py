"""Smears drawn by code, with their ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.synthetic.smear import SyntheticSmear as SyntheticSmear
    from leukokit.synthetic.smear import draw_smear as draw_smear
    from leukokit.synthetic.smear import save_smear as save_smear

_MODULES = {
    "SyntheticSmear": "smear",
    "draw_smear": "smear",
    "save_smear": "smear",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
