"""``leukokit graph``: one image in, the graph of its cells out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leukokit.cli import options
from leukokit.cli.consoles import make_console

if TYPE_CHECKING:
    from leukokit.graph import CellGraph


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
    from leukokit.writers.graph_files import check_graph_suffix, save_cell_graph

    check_graph_suffix(out)
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
    save_cell_graph(found, out, smear.image)
    if not quiet:
        _print_graph(found, smear.notes + found.cells.notes, out)


def _print_graph(graph: CellGraph, notes: tuple[str, ...], out: Path) -> None:
    import numpy as np
    from rich.text import Text

    from leukokit._text import printable

    console = make_console()
    counts = ", ".join(f"{count} {kind}s" for kind, count in graph.cells.counts.items())
    links = f"{graph.edges.shape[1]} links ({graph.builder})"
    if graph.edges.shape[1]:
        links += f", median length {np.median(graph.lengths):.2f} erythrocyte diameters"
    alone = int((graph.degrees == 0).sum())
    console.print(Text(f"{counts}; {links}; {alone} cells without links"), soft_wrap=True)
    for note in notes:
        console.print(f"  note: {printable(note)}", style="yellow", markup=False)
    console.print(Text(f"wrote {printable(out)}"), soft_wrap=True)
    console.print("Research use only; not a medical device.", style="dim")
