"""``leukokit export``: networks for other engines and programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from leukokit.cli import options


class What(StrEnum):
    """Kind of network to export."""

    DETECTOR = "detector"
    CLASSIFIER = "classifier"


class ExportFormat(StrEnum):
    """File format of an export."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCHSCRIPT = "torchscript"


def export_command(
    what: Annotated[What, typer.Argument(help="Network to export.")],
    out: options.ResultsFolder,
    kind: Annotated[ExportFormat, typer.Option("--format", help="File format.")] = ExportFormat.ONNX,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Name of shipped weights, or a weight file.", show_default="shipped"),
    ] = None,
    classifier: Annotated[str, typer.Option("--classifier", help="Classifier plugin.")] = "hybrid",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Quantise to 8 bits: smaller and faster; refused if counts or labels change."
        ),
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate", help="Folder of images for --int8, with all your stains.", show_default=False
        ),
    ] = None,
    plugins: options.Plugins = None,
    trust_pickle: options.TrustPickle = False,
) -> None:
    """Export a network, with its card, for other engines; checked against PyTorch."""
    from leukokit.errors import ConfigError
    from leukokit.export.formats import export as write
    from leukokit.export.int8 import export_int8
    from leukokit.export.targets import classifier_targets, detector_targets
    from leukokit.weights import find

    options.load_plugins(plugins)
    if int8 != (calibrate is not None):
        raise ConfigError("--int8 and --calibrate FOLDER go together")
    if int8 and (what is not What.DETECTOR or kind is not ExportFormat.ONNX):
        raise ConfigError("--int8 is offered for a detector as ONNX")
    if what is What.DETECTOR:
        targets = detector_targets(find(weights or Path("smear-yolo11n")), trust_pickle)
    else:
        targets = classifier_targets(classifier, weights)
    if calibrate is not None:
        path, change = export_int8(targets[0], calibrate, out, report=lambda line: typer.echo(line, err=True))
        said = ", ".join(f"{kind} {old} -> {new}" for kind, (old, new) in change.cells.items())
        typer.echo(f"wrote {path}: on {change.fields} fields {said}; {change.labels} labels differ")
        return
    for target in targets:
        path, apart = write(target, kind.value, out)
        typer.echo(f"wrote {path}: differs from torch by at most {apart:.1e}")
