"""``leukokit evaluate``: measure on annotated fields."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    detector: Annotated[str | None, typer.Option(help="Detector plugin. [default: yolo]")] = None,
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

    from rich.console import Console

    from leukokit.config import load_config
    from leukokit.errors import DataError
    from leukokit.evaluation.detection import evaluate_detector, table_of
    from leukokit.pipeline import Pipeline
    from leukokit.registry import load_file
    from leukokit.training.fields import read_fields
    from leukokit.weights import record_metrics
    from leukokit.writers.base import write_whole

    for path in plugin or []:
        load_file(path)
    chosen = [
        field
        for field in read_fields(fields)
        if (not dataset or field.dataset in dataset)
        and (not lab or field.lab in lab)
        and (not split or field.split in split)
        and (not slide or field.slide in slide)
    ]
    if not chosen:
        raise DataError(f"{fields}: no field is of that data set, laboratory, split and slide")
    console = Console(stderr=as_json, highlight=False)
    pipeline = Pipeline(load_config(config, assign or [], detector), device)
    figures = evaluate_detector(pipeline, chosen, console)
    document = json.dumps(figures, indent=1) + "\n"
    if out:
        write_whole(out, document)
    if card:
        record_metrics(card, title or "detector", figures)
    if as_json:
        typer.echo(document, nl=False)
    else:
        console.print(table_of(figures))
