"""``leukokit detect``: images in, counts and files out."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from leukokit.cli import options

DEFAULT_OUT = Path("leukokit-results")
DEFAULT_SAVE = "png,json,csv"


def detect(
    images: options.Images,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default=str(DEFAULT_OUT))
    ] = None,
    json_lines: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON document per image on stdout; files only with --out or --save."
        ),
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(
            help="Writers, comma-separated (png, json, csv, coco, yolo, geojson, ...); 'none' for no files.",
            show_default=DEFAULT_SAVE,
        ),
    ] = None,
    detector: options.DetectorName = None,
    graph: options.Graph = None,
    classifier: options.ClassifierName = None,
    config: options.Config = None,
    settings: options.Settings = None,
    plugins: options.Plugins = None,
    engine: options.EngineName = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    trust_pickle: options.TrustPickle = False,
    quiet: options.Quiet = False,
) -> None:
    """Find, count and name the cells of smear images; print the counts and save the results."""
    from leukokit.cli.detect_run import Detection, split_writer_names
    from leukokit.cli.streams import SafeStream, private_stdout
    from leukokit.cli.supervision import supervise

    folder = out or DEFAULT_OUT
    if save is None:
        save = DEFAULT_SAVE if out is not None or not json_lines else ""
    names = split_writer_names(save)
    supervise(names)
    with contextlib.ExitStack() as stack:
        # With --json, standard output holds documents and nothing that a plugin prints.
        stdout = stack.enter_context(private_stdout()) if json_lines else SafeStream(sys.stdout)
        people = SafeStream(sys.stderr) if json_lines else stdout
        chosen = options.pipeline_config(
            config,
            settings,
            plugins,
            detector=detector,
            graph=graph,
            classifier=classifier,
            engine=engine,
            trust_pickle=trust_pickle,
        )
        detection = Detection(chosen, device, names, folder, overwrite)
        detection.run(images, people, stdout if json_lines else None, quiet)
    if detection.exit_code:
        raise typer.Exit(detection.exit_code)
