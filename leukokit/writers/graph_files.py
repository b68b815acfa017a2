"""The graph of one field as a file: GraphML, GEXF, JSON or a picture."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from leukokit._files import write_atomically, write_error
from leukokit._text import printable
from leukokit.errors import ConfigError
from leukokit.graph import CellGraph
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.images.png import mark_as_drawn
from leukokit.taxonomy import colour_of
from leukokit.writers.graphml import graphml
from leukokit.writers.png import draw

SUFFIXES: Final = (".graphml", ".gexf", ".json", ".png")
"""Suffixes of the formats that ``save_cell_graph`` writes."""
LONGEST_SIDE: Final = 4096
"""Larger pictures are reduced to this side, in pixels."""


def check_graph_suffix(path: Path) -> None:
    """Refuse a file whose format is unknown.

    Raises:
        ConfigError: its suffix is not one of ``SUFFIXES``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{printable(path)}: must end in .graphml, .gexf, .json or .png")


def save_cell_graph(graph: CellGraph, path: Path, image: RGBImage) -> None:
    """Write a graph in the format that the file's suffix names.

    ``.graphml`` and ``.gexf`` open in Gephi, Cytoscape and networkx, ``.json`` holds networkx's node-link
    form, and ``.png`` shows the image with cells and links drawn in.

    Args:
        graph: the graph.
        path: the file; its folder is made if it does not exist.
        image: the field's pixels, RGB uint8 (H, W, 3); drawn on for ``.png``.

    Raises:
        ConfigError: the suffix is not one of ``SUFFIXES``.
        OutputError: the file cannot be written.
    """
    check_graph_suffix(path)
    suffix = path.suffix.lower()
    if suffix == ".png":
        content = _png(graph, image)
    else:
        content = {".graphml": graphml, ".gexf": _gexf, ".json": _node_link}[suffix](graph)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    write_atomically(path, content)


def _gexf(graph: CellGraph) -> bytes:
    import networkx as nx

    linked = graph.to_networkx()
    # GEXF keeps no attributes of a graph but its name.
    linked.graph = {"name": graph.builder}
    places = zip(graph.cells.centres.tolist(), graph.cells.diameters.tolist(), strict=True)
    for node, ((x, y), diameter) in zip(linked.nodes.values(), places, strict=True):
        red, green, blue = bytes.fromhex(colour_of(node.get("label") or node["kind"])[1:])
        # Laid out as on the smear; in Gephi y grows upwards.
        node["viz"] = {
            "color": {"r": red, "g": green, "b": blue, "a": 1.0},
            "position": {"x": x, "y": -y, "z": 0.0},
            "size": diameter,
        }
    stream = io.BytesIO()
    nx.write_gexf(linked, stream)
    return stream.getvalue()


def _node_link(graph: CellGraph) -> bytes:
    import networkx as nx

    document = nx.node_link_data(graph.to_networkx(), edges="edges")
    return json.dumps(document, allow_nan=False).encode() + b"\n"


def _png(graph: CellGraph, image: RGBImage) -> bytes:
    from PIL import Image

    # Reduced first, so that lines keep their width.
    scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    picture = scale_image(image, scale).copy()
    cells = replace(graph.cells, boxes=graph.cells.boxes * np.float32(scale))
    # OpenCV takes whole numbers, here of sixteenths of a pixel.
    points = np.round(cells.centres * 16).astype(np.int32)
    width = max(1, round(max(picture.shape[:2]) / 900))
    lines = list(points[graph.edges.T])
    cv2.polylines(
        picture, lines, isClosed=False, color=(0, 0, 0), thickness=width, lineType=cv2.LINE_AA, shift=4
    )
    stream = io.BytesIO()
    Image.fromarray(draw(picture, cells, LONGEST_SIDE)).save(stream, "PNG", compress_level=3)
    return mark_as_drawn(stream.getvalue())
