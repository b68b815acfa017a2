"""Writers: plugins that save results in a format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.writers.base import Writer as Writer

_MODULES = {
    "Writer": "base",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
