"""Writer ``graphml``: the cell graph in GraphML (Brandes et al. 2002, doi:10.1007/3-540-45848-4_59)."""

from __future__ import annotations

import io
from dataclasses import replace

from leukokit.graph import CellGraph
from leukokit.results import SmearResult
from leukokit.writers.base import Writer
from leukokit.writers.labels import cell_labels


class GraphmlWriter(Writer):
    """``STEM.graphml`` for every image, a node a cell; cells that are not linked where there is no graph.

    Attributes are those of ``CellGraph.to_networkx``; a classified leukocyte has ``label``, ``probability``
    (of its most probable class) and ``review`` too.
    """

    name = "graphml"
    version = "1.0"
    summary = "one GraphML file an image: cells, links and labels, for Gephi, Cytoscape, igraph, networkx"

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        import networkx as nx

        cells = result.cells
        graph = CellGraph.unlinked(cells) if result.graph is None else replace(result.graph, cells=cells)
        linked = graph.to_networkx()
        for number, label in enumerate(cell_labels(cells)):
            if label is not None:
                linked.nodes[number].update(
                    label=label.name, probability=label.probability, review=label.review
                )
        stream = io.BytesIO()
        # The plain writer: another is taken where lxml happens to be installed.
        nx.write_graphml_xml(linked, stream)
        self.save(self.path_for(result, ".graphml"), stream.getvalue())
