"""``leukokit evaluate``: measure on annotated fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from leukokit.cli import options
from leukokit.cli.progress import progress_bar

app = typer.Typer(help="Measure on annotated fields.", no_args_is_help=True)


@app.callback()
def _evaluate_group() -> None:
    pass


@app.command("detector")
def evaluate_detector_command(
    fields: options.Fields,
    datasets: options.Datasets = None,
    labs: options.Labs = None,
    splits: options.Splits = None,
    slides: options.Slides = None,
    config: options.Config = None,
    settings: options.Settings = None,
    plugins: options.Plugins = None,
    detector: options.DetectorName = None,
    device: options.Device = "auto",
    out: options.FiguresFile = None,
    card: options.CardFile = None,
    title: options.Title = "",
    as_json: options.Json = False,
) -> None:
    """Measure how well cells are found: average precision, precision, recall and count error."""
    from leukokit.config import NO_CLASSIFIER
    from leukokit.datasets.fields import select_fields
    from leukokit.evaluation import evaluate_detector
    from leukokit.pipeline import Pipeline
    from leukokit.weights import record_metrics

    chosen = select_fields(fields, datasets, labs, splits, slides)
    made = options.pipeline_config(config, settings, plugins, detector=detector, classifier=NO_CLASSIFIER)
    pipeline = Pipeline.from_config(made, device)
    with progress_bar("evaluating") as progress:
        figures = evaluate_detector(pipeline, chosen, progress)
    if card:
        record_metrics(card, title or "detector", figures)
    if not _write_figures(figures, out, as_json):
        from leukokit.cli.consoles import make_console
        from leukokit.cli.tables import detection_table

        make_console().print(detection_table(figures))
    _exit_for(figures["failures"])


@app.command("classifier")
def evaluate_classifier_command(
    cells: Annotated[list[Path], typer.Option(help="Folder of 'leukokit data cells'; repeatable.")],
    datasets: options.Datasets = None,
    labs: options.Labs = None,
    splits: options.Splits = None,
    slides: options.Slides = None,
    classes: options.Classes = None,
    classifier: options.ClassifierName = None,
    graph: options.Graph = None,
    config: options.Config = None,
    settings: options.Settings = None,
    plugins: options.Plugins = None,
    device: options.Device = "auto",
    out: options.FiguresFile = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write every prediction to this CSV file.", show_default=False)
    ] = None,
    picture: options.PictureFile = None,
    card: options.CardFile = None,
    title: options.Title = "",
    as_json: options.Json = False,
) -> None:
    """Measure how well detected leukocytes are named: accuracy, figures per class, calibration."""
    from leukokit.datasets.detected import select_detected
    from leukokit.evaluation import evaluate_classifier
    from leukokit.evaluation.classification import card_figures, classification_note
    from leukokit.pipeline import Pipeline
    from leukokit.weights import record_metrics

    chosen = select_detected(cells, datasets, labs, splits, slides, classes)
    made = options.pipeline_config(config, settings, plugins, graph=graph, classifier=classifier)
    with progress_bar("evaluating") as progress:
        found, report = evaluate_classifier(Pipeline.from_config(made, device), chosen, progress)
    if card:
        record_metrics(card, title or "classifier", card_figures(report))
    if predictions:
        found.save(predictions)
    if picture:
        from leukokit.evaluation.confusion import save_confusion

        save_confusion(picture, report.confusion)
    if not _write_figures(report.to_json(), out, as_json):
        from leukokit.cli.consoles import make_console
        from leukokit.cli.tables import classification_table, confusion_table, print_tables

        parts = classification_table(report), classification_note(report), confusion_table(report.confusion)
        print_tables(make_console(), *parts)


@app.command()
def pipeline(
    fields: options.Fields,
    datasets: options.Datasets = None,
    labs: options.Labs = None,
    splits: options.Splits = None,
    slides: options.Slides = None,
    config: options.Config = None,
    settings: options.Settings = None,
    plugins: options.Plugins = None,
    detector: options.DetectorName = None,
    graph: options.Graph = None,
    classifier: options.ClassifierName = None,
    device: options.Device = "auto",
    out: options.FiguresFile = None,
    picture: options.PictureFile = None,
    as_json: options.Json = False,
) -> None:
    """Measure how well leukocytes are found and named, end to end: missed and false cells count as errors."""
    from leukokit.datasets.fields import select_fields
    from leukokit.evaluation import evaluate_pipeline
    from leukokit.evaluation.end_to_end import end_to_end_note
    from leukokit.metrics.confusion import ConfusionMatrix
    from leukokit.pipeline import Pipeline

    chosen = select_fields(fields, datasets, labs, splits, slides)
    made = options.pipeline_config(
        config, settings, plugins, detector=detector, graph=graph, classifier=classifier
    )
    with progress_bar("evaluating") as progress:
        figures = evaluate_pipeline(Pipeline.from_config(made, device), chosen, progress)
    confusion = ConfusionMatrix.model_validate(figures["confusion"])
    if picture:
        from leukokit.evaluation.confusion import save_confusion

        save_confusion(picture, confusion)
    if not _write_figures(figures, out, as_json):
        from leukokit.cli.consoles import make_console
        from leukokit.cli.tables import confusion_table, pipeline_tables, print_tables

        print_tables(
            make_console(), *pipeline_tables(figures), end_to_end_note(figures), confusion_table(confusion)
        )
    _exit_for(figures["failures"])


def _write_figures(figures: dict[str, Any], out: Path | None, as_json: bool) -> bool:
    """Write the figures as JSON where they are asked for; whether stdout has had them."""
    from leukokit._files import write_atomically

    document = json.dumps(figures, indent=1, allow_nan=False) + "\n"
    if out:
        write_atomically(out, document)
    if as_json:
        typer.echo(document, nl=False)
    return as_json


def _exit_for(failures: list[str]) -> None:
    """Print what failed; exit code 3 if anything did, as for images."""
    for failure in failures:
        typer.echo(f"error: {failure}", err=True)
    if failures:
        raise typer.Exit(3)
