"""``leukokit detect``: images in, counts and files out."""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leukokit.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from leukokit.differential import Differential
    from leukokit.results import SmearResult
    from leukokit.writers.base import Writer

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
    trust_pickle: options.TrustPickle = False,
    quiet: options.Quiet = False,
) -> None:
    """Find, count and name the cells of smear images; print the counts and save the results."""
    from rich.console import Console

    from leukokit.batch.results import open_results
    from leukokit.differential import differential
    from leukokit.errors import LeukokitError, PluginError
    from leukokit.images.inputs import find_images
    from leukokit.writers.base import write_with

    console = Console(stderr=json_lines, quiet=quiet, highlight=False)
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
    names = _writer_names(save, writes=not json_lines or out is not None)
    found = find_images(images)
    failures = list(found.problems)
    for problem in failures:
        typer.echo(f"error: {problem}", err=True)
    if found.note:
        console.print(found.note, style="dim", markup=False)

    earlier = set((out or DEFAULT_OUT).glob("*"))
    done = 0
    classes: Counter[str] = Counter()
    unfinished: list[str] = []
    with (
        _interruptible(lambda: f"{done} of {len(found.images)} images are {'saved' if names else 'done'}"),
        open_results(chosen, device) as results_of,
        _open_writers(names, out or DEFAULT_OUT, unfinished) as writers,
    ):
        for result in results_of(found.images):
            if isinstance(result, LeukokitError):
                failures.append(str(result))
                typer.echo(f"error: {result}", err=True)
                continue
            try:
                for writer in writers:
                    write_with(writer, result)
            except PluginError as error:
                failures.append(str(error))
                typer.echo(f"error: {error}", err=True)
                continue
            done += 1
            # Zeros stay: a class without a cell has its row, too.
            classes.update(result.cells.class_counts)
            if json_lines:
                typer.echo(json.dumps(result.to_json(), allow_nan=False))
            elif not quiet:
                _print_row(console, result, first=done == 1)
                _print_classes(console, result)
            for note in result.notes:
                console.print(f"  note: {note}", style="yellow", markup=False)
            # Let go of the image before the next one is read.
            del result
    for failure in unfinished:
        typer.echo(f"error: {failure}", err=True)
    if classes:
        _print_differential(console, differential(classes), done)
    if done and not quiet:
        _print_files(console, writers, earlier)
    if unfinished:
        raise typer.Exit(1)
    if failures:
        raise typer.Exit(3 if done else 1)


@contextlib.contextmanager
def _interruptible(through: Callable[[], str]) -> Iterator[None]:
    """Say how far it came when Ctrl-C stops what is within."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"stopped: {through()}", err=True)
        raise typer.Exit(130) from None


def _writer_names(save: str | None, writes: bool) -> list[str]:
    if save is None:
        save = DEFAULT_SAVE if writes else ""
    return [name.strip() for name in save.split(",") if name.strip() and name.strip() != "none"]


@contextlib.contextmanager
def _open_writers(names: list[str], out: Path, unfinished: list[str]) -> Iterator[list[Writer]]:
    """Writers that are open; what they fail at when they finish is added to ``unfinished``."""
    from leukokit._files import make_folder
    from leukokit.batch.manifest_files import MANIFEST_NAME as MANIFEST
    from leukokit.errors import ConfigError
    from leukokit.registry import writers
    from leukokit.writers.base import close_all

    plugins = [writers.get(name) for name in dict.fromkeys(names)]
    # What a file of its own cannot be written of is not to stand in a table over all images.
    plugins.sort(key=lambda plugin: not plugin.file_per_image)
    if plugins:
        if (out / MANIFEST).exists():
            raise ConfigError(f"{out}: holds a batch, whose tables would be replaced; choose another --out")
        make_folder(out)
    opened: list[Writer] = []
    try:
        # One by one, so that those opened before a failure are closed.
        for plugin in plugins:
            opened.append(plugin(out))  # noqa: PERF401
        yield opened
    finally:
        unfinished += map(str, close_all(opened))


def _print_row(console: Console, result: SmearResult, first: bool) -> None:
    """A row a result as it comes: a table that grows, because a folder may take hours."""
    from rich.table import Table
    from rich.text import Text

    counts = result.cells.counts
    ruler = result.cells.erythrocyte_diameter_px
    width = max(20, console.width - 60)
    table = Table(box=None, show_header=first, header_style="bold", pad_edge=False)
    table.add_column("image", width=width, no_wrap=True)
    for kind in counts:
        table.add_column(f"{kind}s", width=12, justify="right", no_wrap=True)
    table.add_column("diameter", width=8, justify="right")
    table.add_column("s", width=5, justify="right")
    name = str(result.smear.path or result.output_stem)
    # The end of a path tells images apart.
    name = name if len(name) <= width else f"…{name[1 - width :]}"
    figures = [str(count) for count in counts.values()]
    table.add_row(Text(name), *figures, "-" if ruler is None else f"{ruler:.0f} px", f"{result.seconds:.2f}")
    console.print(table)


def _print_classes(console: Console, result: SmearResult) -> None:
    from rich.text import Text

    # A line breaks between entries, never within one: only there is a space that may.
    entries = [
        f"{name} {count}".replace(" ", "\N{NO-BREAK SPACE}")
        for name, count in result.cells.class_counts.items()
        if count
    ]
    indent = "  "
    lines = textwrap.wrap(
        indent.join(entries), console.width, initial_indent=indent, subsequent_indent=indent
    )
    for line in lines:
        console.print(Text(line.replace("\N{NO-BREAK SPACE}", " ")), no_wrap=True, overflow="ignore")


def _print_differential(console: Console, count: Differential, images: int) -> None:
    """The differential count of all images, with what is left out of it below."""
    from rich.table import Table
    from rich.text import Text

    console.print()
    if count.warning:
        console.print(count.warning, style="bold red", markup=False)
    if count.n:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(f"differential of {images} image{'s' if images > 1 else ''}", no_wrap=True)
        for title in ("n", "%", "bounds" if count.is_withheld else "95% interval"):
            table.add_column(title, justify="right", no_wrap=True)
        for name, share in count.shares.items():
            low, high = count.bounds(name) if count.is_withheld else (share.low, share.high)
            percent = "" if count.is_withheld else f"{share.percent:.1f}"
            table.add_row(Text(name), str(share.count), percent, f"{low:.1f} - {high:.1f}")
        table.add_row("classified leukocytes", str(count.n), style="bold")
        console.print(table)
    if count.withheld_reason:
        console.print(count.withheld_reason, style="yellow", markup=False)
    if count.below_minimum:
        said = f"n = {count.n}: a differential count needs 100 classified leukocytes or more."
        console.print(said, style="yellow")
    if count.unknown:
        console.print(f"unknown {count.unknown}, to review first; not in the percentages")
    if count.unclassified:
        console.print(f"unclassified {count.unclassified}, to review; not in the percentages")
    if count.erythroblasts:
        per_100 = count.erythroblasts_per_100
        ratio = "" if per_100 is None else f", {per_100:.1f} per 100 leukocytes"
        console.print(f"erythroblasts {count.erythroblasts}{ratio}; not counted as leukocytes")


def _print_files(console: Console, writers: list[Writer], earlier: set[Path]) -> None:
    """What was written, and which tables over all images those of an ``earlier`` run had to give way to."""
    from rich.text import Text

    replaced = [
        path.name
        for writer in writers
        if not writer.file_per_image
        for path in writer.files
        if path in earlier
    ]
    for writer in writers:
        if len(writer.files) <= 2:
            for path in writer.files:
                console.print(Text(f"wrote {path}"), soft_wrap=True)
        elif writer.files:
            console.print(
                Text(f"wrote {len(writer.files)} {writer.name} files under {writer.out}"), soft_wrap=True
            )
    if replaced:
        said = f"{', '.join(sorted(replaced))} of an earlier run replaced; --out keeps runs apart"
        console.print(said, style="yellow", markup=False)
    console.print("Research use only; not a medical device.", style="dim")
