"""``leukokit graph``: one image in, the graph of its cells out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from leukokit.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from leukokit.graph import CellGraph
    from leukokit.images.pixels import RGBImage

LONGEST_SIDE = 4096
"""Larger pictures are reduced to this side, in pixels."""


def graph(
    image: options.Image,
    out: Annotated[
        Path, typer.Option(help="File to write; its ending decides: .graphml, .gexf, .json or .png.")
    ],
    builder: options.Graph = None,
    detector: options.DetectorName = None,
    classifier: options.OptionalClassifier = None,
    config: options.Config = None,
    settings: options.Settings = None,
    plugins: options.Plugins = None,
    engine: options.EngineName = None,
    device: options.Device = "auto",
    trust_pickle: options.TrustPickle = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the cells of a smear image, link neighbours and save the graph.

    .graphml and .gexf open in Gephi, Cytoscape and networkx, .json holds networkx's node-link form, and
    .png shows the smear with cells and links drawn in.
    """
    from leukokit._text import printable
    from leukokit.config import NO_CLASSIFIER
    from leukokit.errors import ConfigError, LeukokitError
    from leukokit.pipeline import Pipeline

    suffix = out.suffix.lower()
    if suffix != ".png" and suffix not in _FORMATS:
        raise ConfigError(f"--out {printable(out)}: must end in .graphml, .gexf, .json or .png")
    if out.exists() and image.exists() and out.samefile(image):
        raise ConfigError(f"--out {printable(out)}: is the image itself; choose another file")
    pipeline = Pipeline.from_config(
        options.pipeline_config(
            config,
            settings,
            plugins,
            detector=detector,
            graph=builder,
            classifier=classifier or NO_CLASSIFIER,
            engine=engine,
            trust_pickle=trust_pickle,
        ),
        device,
    )
    smear = pipeline.read(image)
    (found,) = pipeline.process([smear])
    if isinstance(found, LeukokitError):
        raise found
    _save(out, _png(found, smear.image) if suffix == ".png" else _FORMATS[suffix](found))
    if not quiet:
        _report(found, smear.notes + found.cells.notes, out)


def _save(out: Path, content: bytes | str) -> None:
    from leukokit._files import write_atomically, write_error

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error
    write_atomically(out, content)


def _report(graph: CellGraph, notes: tuple[str, ...], out: Path) -> None:
    import numpy as np
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    counts = ", ".join(f"{count} {kind}s" for kind, count in graph.cells.counts.items())
    links = f"{graph.edges.shape[1]} links ({graph.builder})"
    if graph.edges.shape[1]:
        links += f", median length {np.median(graph.lengths):.2f} erythrocyte diameters"
    alone = int((graph.degrees == 0).sum())
    console.print(Text(f"{counts}; {links}; {alone} cells without links"), soft_wrap=True)
    for note in notes:
        console.print(f"  note: {note}", style="yellow", markup=False)
    console.print(Text(f"wrote {out}"), soft_wrap=True)
    console.print("Research use only; not a medical device.", style="dim")


def _graphml(graph: CellGraph) -> bytes:
    from leukokit.writers.graphml import graphml

    return graphml(graph)


def _gexf(graph: CellGraph) -> bytes:
    import io

    import networkx as nx

    from leukokit.taxonomy import colour_of

    linked = graph.to_networkx()
    # GEXF keeps no attributes of a graph but its name.
    linked.graph = {"name": graph.builder}
    places = zip(graph.cells.centres.tolist(), graph.cells.diameters.tolist(), strict=True)
    for node, ((x, y), diameter) in zip(linked.nodes.values(), places, strict=True):
        red, green, blue = _parse_rgb(colour_of(node.get("label") or node["kind"]))
        # Laid out as on the smear; in Gephi y grows upwards.
        node["viz"] = {
            "color": {"r": red, "g": green, "b": blue, "a": 1.0},
            "position": {"x": x, "y": -y, "z": 0.0},
            "size": diameter,
        }
    stream = io.BytesIO()
    nx.write_gexf(linked, stream)
    return stream.getvalue()


def _node_link(graph: CellGraph) -> str:
    import json

    import networkx as nx

    document = nx.node_link_data(graph.to_networkx(), edges="edges")
    return json.dumps(document, allow_nan=False) + "\n"


_FORMATS: Final[dict[str, Callable[[CellGraph], bytes | str]]] = {
    ".graphml": _graphml,
    ".gexf": _gexf,
    ".json": _node_link,
}


def _png(graph: CellGraph, image: RGBImage) -> bytes:
    import io
    from dataclasses import replace

    import cv2
    import numpy as np
    from PIL import Image

    from leukokit.images.pixels import scale_image
    from leukokit.images.png import mark_as_drawn
    from leukokit.writers.png import draw

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


def _parse_rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return red, green, blue
