"""``leukokit data``: public sets, their preparation for training, and drawn smears."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leukokit.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from leukokit.datasets.recipe import SetRecipe
    from leukokit.datasets.report import PreparationReport

app = typer.Typer(help="List, download and prepare image sets; draw smears.", no_args_is_help=True)

OwnCatalogue = Annotated[
    Path | None, typer.Option("--catalogue", help="YAML with sets of your own.", show_default=False)
]


class Form(StrEnum):
    """Forms in which cells are annotated."""

    YOLO = "yolo"
    VOC = "voc"
    COCO = "coco"
    CLASSES = "classes"


@app.command("list")
def list_sets(catalogue: OwnCatalogue = None) -> None:
    """Show the known sets with their licences, citations and homes."""
    from rich.table import Table
    from rich.text import Text

    from leukokit.datasets.catalogue import load_catalogue

    table = Table(box=None, header_style="bold")
    table.add_column("set", no_wrap=True)
    table.add_column("licence", max_width=10)
    table.add_column("content, citation, home", overflow="fold")
    for entry in load_catalogue(catalogue).values():
        home = entry.home if entry.files else f"{entry.home} (by hand: {entry.access})"
        about = [f"{entry.what} ({', '.join(entry.labs)})", entry.citation, home, ""]
        table.add_row(Text(entry.name), Text(entry.licence), Text("\n".join(about)))
    _stderr().print(table)


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="A set of 'leukokit data list'.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of all sets; this one goes to OUT/NAME.")] = Path("data"),
    catalogue: OwnCatalogue = None,
) -> None:
    """Download a set from its public home; resumes a download that broke off."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from leukokit.datasets.catalogue import find_set, load_catalogue
    from leukokit.datasets.download import fetch as fetch_set

    entry = find_set(name, load_catalogue(catalogue))
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_stderr(), transient=True) as bar:
        tasks = {file.name: bar.add_task(file.name, total=None) for file in entry.files}
        files = fetch_set(
            entry, out, lambda file, done, total: bar.update(tasks[file], completed=done, total=total)
        )
    for file in files:
        checked = "as known" if file.known_before else "not known before, recorded in fetched.json"
        typer.echo(f"{file.unpacked or file.path}  SHA-256 {file.sha256} ({checked})", err=True)
    typer.echo(f"Licence: {entry.licence}. Please cite: {entry.citation or entry.home}", err=True)


@app.command("prepare")
def prepare_command(
    folder: Annotated[
        Path | None, typer.Argument(help="One annotated set; or give --config.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Prepared fields; a report is written beside it.")] = Path(
        "fields.jsonl"
    ),
    form: Annotated[
        Form | None, typer.Option("--format", help="Form of FOLDER's annotations.", show_default=False)
    ] = None,
    dataset: Annotated[str, typer.Option(help="Name of the set.", show_default="that of FOLDER")] = "",
    lab: Annotated[str, typer.Option(help="Laboratory of the set.", show_default="name of the set")] = "",
    annotated: Annotated[
        str | None,
        typer.Option(
            help="Kinds annotated completely, e.g. leukocyte,platelet.", show_default="all that occur"
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="NAME=KIND[:LABEL], NAME being a class or its number; repeatable.",
            show_default=False,
        ),
    ] = None,
    photo_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; its group is the photograph's name in a file name.",
            show_default="the file name without suffix",
        ),
    ] = None,
    val: Annotated[float, typer.Option(help="Share of the photographs for validation.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Another seed gives another split.")] = 0,
    config: Annotated[
        Path | None, typer.Option(help="YAML of several sets with one index.", show_default=False)
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="With --config: folder of the sets.", show_default="the file's")
    ] = None,
) -> None:
    """Prepare annotated images for training; copies of a photograph stay on one side of the split."""
    from leukokit import datasets
    from leukokit._yaml import load_model
    from leukokit.datasets.recipe import FieldsConfig
    from leukokit.errors import ConfigError

    if config is not None and folder is None and form is None:
        sets = load_model(FieldsConfig, config)
        report = datasets.prepare(sets.model_copy(update={"root": root or sets.root}), out)
    elif folder is not None and form is not None and config is None and root is None:
        recipe = _recipe(dataset or folder.resolve().name, form, annotated, classes or [])
        report = datasets.prepare(folder, out, recipe, lab, photo_pattern, val, seed)
    else:
        raise ConfigError("give either FOLDER with --format, or --config (and --root) for several sets")
    _print_report(report, out)


@app.command()
def cells(
    fields: options.Fields,
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    config: options.Config = None,
    settings: options.Settings = None,
    plugins: options.Plugins = None,
    device: options.Device = "auto",
) -> None:
    """Detect the cells of annotated fields, and save what the training of classifiers needs."""
    from leukokit.config import NO_CLASSIFIER
    from leukokit.datasets.detected import detect_fields
    from leukokit.datasets.fields import read_fields
    from leukokit.pipeline import Pipeline

    made = options.pipeline_config(config, settings, plugins, classifier=NO_CLASSIFIER)
    pipeline = Pipeline.from_config(made, device)
    crops = detect_fields(read_fields(fields), pipeline, out, lambda line: typer.echo(line, err=True))
    typer.echo(f"wrote {crops} annotated cells to {out}", err=True)


@app.command()
def synth(
    out: Annotated[
        Path, typer.Argument(help="PNG to draw; its cells go beside it as JSON.", show_default=False)
    ],
    seed: Annotated[int, typer.Option(help="Another seed gives another smear.")] = 0,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 1600,
    height: Annotated[int, typer.Option(help="Height in pixels.")] = 1200,
    leukocytes: Annotated[int, typer.Option(help="Number of leukocytes.")] = 10,
    diameter: Annotated[float, typer.Option(help="Usual erythrocyte diameter in pixels.")] = 70.0,
) -> None:
    """Draw a stained field of view, and write down its cells."""
    from leukokit.synthetic.smear import draw_smear, save_smear

    smear = draw_smear(seed, width, height, leukocytes, diameter)
    truth = save_smear(smear, out)
    typer.echo(f"{out}, {len(smear.kinds)} cells; truth in {truth}", err=True)


def _recipe(name: str, form: Form, annotated: str | None, classes: list[str]) -> SetRecipe:
    from pydantic import ValidationError

    from leukokit._yaml import first_fault
    from leukokit.datasets.recipe import SetRecipe
    from leukokit.errors import ConfigError

    meanings = {}
    for text in classes:
        key, equals, meaning = text.partition("=")
        if not (key and equals and meaning):
            raise ConfigError(f"--class {text}: must be NAME=KIND[:LABEL], e.g. WBC=leukocyte")
        meanings[key] = meaning
    settings: dict[str, object] = {"name": name, "format": form.value, "classes": meanings}
    if annotated is not None:
        settings["annotated"] = [kind.strip() for kind in annotated.split(",") if kind.strip()]
    try:
        return SetRecipe.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"--{first_fault(error).replace('classes', 'class', 1)}") from error


def _print_report(report: PreparationReport, out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from leukokit._text import printable
    from leukokit.datasets.report import Reason, report_path

    console = _stderr()
    fields = Table("set", "split", "fields", box=None, header_style="bold")
    for (dataset, split), count in sorted(report.fields.items()):
        fields.add_row(Text(printable(dataset)), split, str(count))
    console.print(fields)
    if report.left_out:
        left_out = Table("left out or changed", "count", "for example", box=None, header_style="bold")
        for reason, what in report.left_out.items():
            left_out.add_row(reason.value, str(len(what)), Text(printable(what[0])))
        console.print(left_out)
    unknown = sorted({what.rpartition(": ")[2] for what in report.left_out.get(Reason.UNKNOWN_CLASS, [])})
    if unknown:
        names = printable(", ".join(unknown))
        typer.echo(f"Not known: {names}. Map what is a cell with --class NAME=KIND[:LABEL].", err=True)
    counts = ", ".join(f"{count} {kind}s" for kind, count in report.boxes.items())
    typer.echo(f"{out}: {counts or 'no cells'}; all that was left out: {report_path(out)}", err=True)


def _stderr() -> Console:
    """Tables and progress go to stderr; stdout stays empty."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
