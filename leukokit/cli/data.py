"""``leukokit data``: public sets, their preparation for training, and drawn smears."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from leukokit.datasets.preparation import Report
    from leukokit.datasets.recipe import SetRecipe

app = typer.Typer(help="List, fetch and prepare smear image sets; draw a smear.", no_args_is_help=True)

OwnCatalogue = Annotated[Path | None, typer.Option("--catalogue", help="YAML file with sets of your own.")]


class Form(StrEnum):
    """Forms of annotation."""

    yolo = "yolo"
    voc = "voc"
    coco = "coco"
    classes = "classes"


@app.command("list")
def list_sets(catalogue: OwnCatalogue = None) -> None:
    """Show the known sets with their licences, citations and homes."""
    from rich.table import Table

    from leukokit.datasets.catalogue import load_catalogue

    table = Table(box=None, header_style="bold")
    table.add_column("set", no_wrap=True)
    table.add_column("licence", max_width=10)
    table.add_column("what, whom to cite, where it lives", overflow="fold")
    for entry in load_catalogue(catalogue).values():
        home = entry.home if entry.files else f"{entry.home} (by hand: {entry.access})"
        about = [f"{entry.what} ({', '.join(entry.labs)})", entry.citation, home, ""]
        table.add_row(entry.name, entry.licence, "\n".join(about))
    _people().print(table)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A set of 'leukokit data list'.")],
    out: Annotated[Path, typer.Option(help="Folder of all sets; this one goes to OUT/NAME.")] = Path("data"),
    catalogue: OwnCatalogue = None,
) -> None:
    """Download a set from its public home; resumes a download that broke off."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from leukokit.datasets.catalogue import find_set, load_catalogue
    from leukokit.datasets.download import fetch as fetch_set

    entry = find_set(name, load_catalogue(catalogue))
    console = _people()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {file.name: bar.add_task(file.name, total=None) for file in entry.files}
        files = fetch_set(
            entry, out, lambda file, done, total: bar.update(tasks[file], completed=done, total=total)
        )
    for file in files:
        checked = "as known" if file.known_before else "not known before, recorded in fetched.json"
        console.print(f"{file.unpacked or file.path}  SHA-256 {file.sha256} ({checked})", soft_wrap=True)
    console.print(f"Licence: {entry.licence}. Please cite: {entry.citation or entry.home}", soft_wrap=True)


@app.command()
def prepare(
    folder: Annotated[Path | None, typer.Argument(help="One annotated set; or give --config.")] = None,
    out: Annotated[Path, typer.Option(help="Prepared fields; a report is written beside it.")] = Path(
        "fields.jsonl"
    ),
    form: Annotated[Form | None, typer.Option("--format", help="Form of FOLDER's annotations.")] = None,
    dataset: Annotated[str, typer.Option(help="Name of the set (the folder's if left out)")] = "",
    lab: Annotated[str, typer.Option(help="Laboratory of the set (the set's name if left out)")] = "",
    annotated: Annotated[
        str | None,
        typer.Option(help="Kinds annotated completely, e.g. leukocyte,platelet (all that occur if left out)"),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="NAME=KIND[:LABEL], NAME being a class or its number; repeatable."),
    ] = None,
    photo_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; its group is the photo's name in a file name (stem if left out)"
        ),
    ] = None,
    val: Annotated[float, typer.Option(help="Share of the photographs for validation.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    config: Annotated[Path | None, typer.Option(help="YAML of several sets with one index.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="With --config: folder of the sets, over the file's.")
    ] = None,
) -> None:
    """Turn annotated images into what training reads, every copy of a photograph on one side."""
    from leukokit.datasets.preparation import prepare_index, prepare_set
    from leukokit.datasets.recipe import load_config
    from leukokit.errors import ConfigError

    if config is not None and folder is None and form is None:
        report = prepare_index(load_config(config), out, root)
    elif folder is not None and form is not None and config is None and root is None:
        recipe = _recipe(dataset or folder.resolve().name, form, annotated, classes or [])
        report = prepare_set(folder, recipe, out, lab or recipe.name, photo_pattern, val, seed)
    else:
        raise ConfigError("give either FOLDER with --format, or --config (and --root) for several sets")
    _show(report, out, _people())


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="PNG to draw; its truth goes beside it as JSON.")],
    seed: Annotated[int, typer.Option(help="Another seed, another smear.")] = 0,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 1600,
    height: Annotated[int, typer.Option(help="Height in pixels.")] = 1200,
    leukocytes: Annotated[int, typer.Option(help="How many leukocytes.")] = 10,
    diameter: Annotated[float, typer.Option(help="Usual erythrocyte diameter in pixels.")] = 70.0,
) -> None:
    """Draw a stained field of view whose every cell is known."""
    from leukokit.synthetic.smear import draw_smear, save_smear

    smear = draw_smear(seed, width, height, leukocytes, diameter)
    truth = save_smear(smear, out)
    _people().print(f"{out}, {len(smear.kinds)} cells; truth in {truth}", soft_wrap=True)


def _recipe(name: str, form: Form, annotated: str | None, classes: list[str]) -> SetRecipe:
    from pydantic import ValidationError

    from leukokit.datasets.catalogue import first_fault
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


def _show(report: Report, out: Path, console: Console) -> None:
    from rich.table import Table

    from leukokit.datasets.preparation import Reason, report_path

    fields = Table("set", "split", "fields", box=None, header_style="bold")
    for (dataset, split), count in sorted(report.fields.items()):
        fields.add_row(dataset, split, str(count))
    console.print(fields)
    if report.left_out:
        left_out = Table("left out or changed", "count", "for example", box=None, header_style="bold")
        for reason, what in report.left_out.items():
            left_out.add_row(reason.value, str(len(what)), what[0])
        console.print(left_out)
    unknown = sorted({what.rpartition(": ")[2] for what in report.left_out.get(Reason.UNKNOWN_CLASS, [])})
    if unknown:
        console.print(f"Not known: {', '.join(unknown)}. Map what is a cell with --class NAME=KIND[:LABEL].")
    cells = ", ".join(f"{count} {kind}s" for kind, count in report.boxes.items())
    console.print(f"{out}: {cells or 'no cells'}; all that was left out: {report_path(out)}", soft_wrap=True)


def _people() -> Console:
    """Tables and progress go to stderr; stdout stays empty."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@app.command()
def cells(
    fields: Annotated[Path, typer.Option(help="Prepared fields (.jsonl) with classes of leukocytes.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    config: Annotated[Path | None, typer.Option(help="Pipeline as a YAML file.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. detector.weights=FILE; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Detect the cells of annotated fields once, and keep what training a classifier needs of them."""
    from leukokit.config import NO_CLASSIFIER, load_config
    from leukokit.datasets.detected import detect_fields
    from leukokit.datasets.fields import read_fields
    from leukokit.pipeline import Pipeline

    console = _people()
    pipeline = Pipeline.from_config(load_config(config, assign or [], classifier=NO_CLASSIFIER), device)
    crops = detect_fields(read_fields(fields), pipeline, out, console.print)
    console.print(f"wrote {crops} labelled cells to {out}", soft_wrap=True)
