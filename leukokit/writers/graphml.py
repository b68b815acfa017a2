"""Writer ``graphml``: the cell graph in GraphML (Brandes et al. 2002, doi:10.1007/3-540-45848-4_59)."""

from __future__ import annotations

import io
from dataclasses import replace

from leukokit.graph import CellGraph
from leukokit.results import SmearResult
from leukokit.writers.base import Writer


class GraphmlWriter(Writer):
    """``STEM.graphml`` for every image: nodes and attributes are those of ``CellGraph.to_networkx``.

    A result without a graph is written as its cells alone, none of them linked.
    """

    name = "graphml"
    version = "1.0"
    summary = "one GraphML file per image: cells, links and labels, for Gephi, Cytoscape, igraph, networkx"

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        cells = result.cells
        # A graph is built before its cells are labelled: only the result's surely have their classes.
        graph = CellGraph.unlinked(cells) if result.graph is None else replace(result.graph, cells=cells)
        self.save(self.path_for(result, ".graphml"), graphml(graph))


def graphml(graph: CellGraph) -> bytes:
    """A graph as a GraphML document, which ``networkx.read_graphml`` and ``CellGraph.from_networkx`` read."""
    import networkx as nx

    stream = io.BytesIO()
    # The plain writer: another is taken where lxml happens to be installed.
    nx.write_graphml_xml(graph.to_networkx(), stream)
    return stream.getvalue()
