"""Graph builders: plugins that link the cells of a smear with their neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.graph_builders.base import GraphBuilder as GraphBuilder
    from leukokit.graph_builders.base import GraphBuilderParams as GraphBuilderParams
    from leukokit.graph_builders.base import squared_lengths as squared_lengths
    from leukokit.graph_builders.base import within as within
    from leukokit.graph_builders.delaunay import triangulate as triangulate

_MODULES = {
    "GraphBuilder": "base",
    "GraphBuilderParams": "base",
    "squared_lengths": "base",
    "triangulate": "delaunay",
    "within": "base",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
