"""``leukokit evaluate``: measure on annotated fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from leukokit.datasets.fields import AnnotatedField

WIDE = 1000
"""Columns of what is no terminal: no table needs as many."""

app = typer.Typer(help="Measure on annotated fields.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def detector(
    fields: Annotated[Path, typer.Option(help="Prepared fields (.jsonl); see 'leukokit data prepare'.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only these data sets; repeatable.")] = None,
    lab: Annotated[list[str] | None, typer.Option(help="Only these laboratories; repeatable.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only these splits; repeatable.")] = None,
    slide: Annotated[list[str] | None, typer.Option(help="Only these slides; repeatable.")] = None,
    config: Annotated[Path | None, typer.Option(help="Pipeline as a YAML file.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. detector.weights=FILE; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    detector: Annotated[str | None, typer.Option(help="Detector plugin.", show_default="yolo")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="Record the figures in this card of detector weights, under --title.")
    ] = None,
    title: Annotated[str, typer.Option(help="What was measured, for the card.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
) -> None:
    """Average precision, precision and recall, and count errors, each with n and 95% limits."""
    import json

    from leukokit._files import write_atomically
    from leukokit.config import NO_CLASSIFIER, load_config
    from leukokit.evaluation.detection import evaluate_detector, table_of
    from leukokit.pipeline import Pipeline
    from leukokit.registry import load_file
    from leukokit.weights import record_metrics

    for path in plugin or []:
        load_file(path)
    chosen = _chosen(fields, dataset, lab, split, slide)
    console = console_of(stderr=as_json)
    settings = load_config(config, assign or [], detector, classifier=NO_CLASSIFIER)
    figures = evaluate_detector(Pipeline.from_config(settings, device), chosen, console)
    document = json.dumps(figures, indent=1) + "\n"
    if out:
        write_atomically(out, document)
    if card:
        record_metrics(card, title or "detector", figures)
    if as_json:
        typer.echo(document, nl=False)
    else:
        console.print(table_of(figures))
    _end(figures["failures"])


@app.command()
def classifier(
    cells: Annotated[list[Path], typer.Option(help="Folder of 'leukokit data cells'; repeatable.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only these data sets; repeatable.")] = None,
    lab: Annotated[list[str] | None, typer.Option(help="Only these laboratories; repeatable.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only these splits; repeatable.")] = None,
    slide: Annotated[list[str] | None, typer.Option(help="Only these slides; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only cells of these classes; repeatable.")] = None,
    classifier: Annotated[str | None, typer.Option(help="Classifier plugin.", show_default="hybrid")] = None,
    graph: Annotated[str | None, typer.Option(help="Graph builder.", show_default="knn")] = None,
    config: Annotated[Path | None, typer.Option(help="Pipeline as a YAML file.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. classifier.weights=FILE; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Write every answer to this CSV file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the confusion matrix to this PNG file.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="Record the figures in this card of the weights, under --title.")
    ] = None,
    title: Annotated[str, typer.Option(help="What was measured, for the card.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
) -> None:
    """Accuracy, balanced accuracy, figures a class, confusion matrix and calibration, with 95% limits."""
    import json
    from dataclasses import replace

    from leukokit._files import write_atomically
    from leukokit.config import load_config
    from leukokit.datasets.detected import load_detected
    from leukokit.datasets.photographs import known_values
    from leukokit.errors import DataError
    from leukokit.evaluation.classification import (
        card_figures,
        confusion_of,
        evaluate,
        note_of,
        predict_detected,
        table_of,
    )
    from leukokit.evaluation.confusion import confusion_table, save_confusion
    from leukokit.pipeline import Pipeline
    from leukokit.registry import load_file
    from leukokit.weights import record_metrics

    for path in plugin or []:
        load_file(path)
    seen = [field for folder in cells for field in load_detected(folder).fields]
    chosen = [
        field if not label else replace(field, labels=tuple(n if n in label else "" for n in field.labels))
        for field in seen
        if (not dataset or field.source.dataset in dataset)
        and (not lab or field.source.lab in lab)
        and (not split or field.source.split in split)
        and (not slide or field.source.slide in slide)
    ]
    if not chosen:
        known = known_values(field.source for field in seen)
        raise DataError(f"no annotated cell is of that data set, laboratory, split and slide; {known}")
    console = console_of(stderr=as_json)
    settings = load_config(config, assign or [], graph=graph, classifier=classifier)
    found = predict_detected(Pipeline.from_config(settings, device), chosen, console.print)
    report = evaluate(found)
    document = json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n"
    if out:
        write_atomically(out, document)
    if card:
        record_metrics(card, title or "classifier", card_figures(report))
    if predictions:
        found.save(predictions)
    if picture:
        save_confusion(picture, confusion_of(found))
    if as_json:
        typer.echo(document, nl=False)
    else:
        _print(console, table_of(report), note_of(report), confusion_table(confusion_of(found)))


@app.command()
def pipeline(
    fields: Annotated[Path, typer.Option(help="Prepared fields (.jsonl); see 'leukokit data prepare'.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only these data sets; repeatable.")] = None,
    lab: Annotated[list[str] | None, typer.Option(help="Only these laboratories; repeatable.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only these splits; repeatable.")] = None,
    slide: Annotated[list[str] | None, typer.Option(help="Only these slides; repeatable.")] = None,
    config: Annotated[Path | None, typer.Option(help="Pipeline as a YAML file.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. classifier.weights=FILE; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    detector: Annotated[str | None, typer.Option(help="Detector plugin.", show_default="yolo")] = None,
    graph: Annotated[str | None, typer.Option(help="Graph builder.", show_default="knn")] = None,
    classifier: Annotated[str | None, typer.Option(help="Classifier plugin.", show_default="hybrid")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the confusion matrix to this PNG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
) -> None:
    """Leukocytes found and given their class, against annotated boxes: misses and false cells count."""
    import json

    from leukokit._files import write_atomically
    from leukokit.config import load_config
    from leukokit.evaluation.confusion import ConfusionMatrix, confusion_table, save_confusion
    from leukokit.evaluation.end_to_end import evaluate_pipeline, note_of, tables_of
    from leukokit.pipeline import Pipeline
    from leukokit.registry import load_file

    for path in plugin or []:
        load_file(path)
    chosen = _chosen(fields, dataset, lab, split, slide)
    console = console_of(stderr=as_json)
    settings = load_config(config, assign or [], detector, graph, classifier)
    figures = evaluate_pipeline(Pipeline.from_config(settings, device), chosen, console)
    confusion = ConfusionMatrix.model_validate(figures["confusion"])
    document = json.dumps(figures, indent=1, allow_nan=False) + "\n"
    if out:
        write_atomically(out, document)
    if picture:
        save_confusion(picture, confusion)
    if as_json:
        typer.echo(document, nl=False)
    else:
        _print(console, *tables_of(figures), note_of(figures), confusion_table(confusion))
    _end(figures["failures"])


def console_of(stderr: bool = False) -> Console:
    """Where tables are printed; as wide as they are in a file or a pipe, where nothing says how wide."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def _print(console: Console, *parts: Table | str) -> None:
    """Tables and the notes under them; an empty one is none."""
    for part in filter(None, parts):
        console.print(part, markup=False)


def _end(failures: list[str]) -> None:
    """Say what failed; exit code 3 where something did, as for images."""
    for failure in failures:
        typer.echo(f"error: {failure}", err=True)
    if failures:
        raise typer.Exit(3)


def _chosen(
    fields: Path,
    dataset: list[str] | None,
    lab: list[str] | None,
    split: list[str] | None,
    slide: list[str] | None,
) -> list[AnnotatedField]:
    """The fields of the data sets, laboratories, splits and slides asked for."""
    from leukokit.datasets.fields import read_fields
    from leukokit.datasets.photographs import known_values
    from leukokit.errors import DataError

    known = list(read_fields(fields))
    chosen = [
        field
        for field in known
        if (not dataset or field.dataset in dataset)
        and (not lab or field.lab in lab)
        and (not split or field.split in split)
        and (not slide or field.slide in slide)
    ]
    if not chosen:
        raise DataError(
            f"{fields}: no field is of that data set, laboratory, split and slide; {known_values(known)}"
        )
    return chosen
