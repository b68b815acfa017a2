"""``leukokit detect``: images in, counts and files out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from leukokit.errors import LeukokitError
    from leukokit.inputs import FoundImage
    from leukokit.pipeline import Pipeline
    from leukokit.results import SmearResult
    from leukokit.writers.base import Writer

DEFAULT_OUT = Path("leukokit-results")
DEFAULT_SAVE = "png,json,csv"


def detect(
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders or patterns such as 'a/**/*.tif'.")
    ],
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for the results. [default: {DEFAULT_OUT}]")
    ] = None,
    json_lines: Annotated[
        bool,
        typer.Option("--json", help="One JSON document an image on stdout; files only with --out or --save."),
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(help=f"Writers, comma-separated; 'none' for no files. [default: {DEFAULT_SAVE}]"),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Detector plugin. [default: yolo]")] = None,
    config: Annotated[Path | None, typer.Option(help="Pipeline as a YAML file.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. detector.confidence=0.3; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Read .pt weights, which can run any code.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Find the cells of smear images, print their counts and save the results."""
    from rich.console import Console

    from leukokit.config import load_config
    from leukokit.errors import LeukokitError
    from leukokit.inputs import find_images
    from leukokit.pipeline import Pipeline
    from leukokit.registry import load_file

    console = Console(stderr=json_lines, quiet=quiet, highlight=False)
    for path in plugin or []:
        load_file(path)
    assignments = [*(assign or []), *(["detector.trust_pickle=true"] if trust_pickle else [])]
    pipeline = Pipeline(load_config(config, assignments, detector), device)
    names = _writer_names(save, writes=not json_lines or out is not None)
    found = find_images(images)
    failures = list(found.problems)
    for problem in failures:
        typer.echo(f"error: {problem}", err=True)

    done = 0
    with _open_writers(names, out or DEFAULT_OUT) as writers:
        results = _results(pipeline, found.images)
        for result in results:
            if isinstance(result, LeukokitError):
                failures.append(str(result))
                typer.echo(f"error: {result}", err=True)
                continue
            done += 1
            for writer in writers:
                writer.write(result)
            if json_lines:
                typer.echo(json.dumps(result.to_json(), allow_nan=False))
            elif not quiet:
                _print_row(console, result, first=done == 1)
            for note in result.notes:
                console.print(f"  note: {note}", style="yellow", markup=False)
            # Let go of the image before the next one is read.
            del result
    if done and not quiet:
        _print_files(console, writers)
    if failures:
        raise typer.Exit(3 if done else 1)


def _results(pipeline: Pipeline, images: Sequence[FoundImage]) -> Iterator[SmearResult | LeukokitError]:
    from leukokit.errors import ImageError, PluginError

    for image in images:
        try:
            yield pipeline.run(image.path, image.stem_path)
        except (ImageError, PluginError) as error:
            # What is wrong with one image must not cost the others.
            yield error


def _writer_names(save: str | None, writes: bool) -> list[str]:
    if save is None:
        save = DEFAULT_SAVE if writes else ""
    return [name.strip() for name in save.split(",") if name.strip() and name.strip() != "none"]


@contextlib.contextmanager
def _open_writers(names: list[str], out: Path) -> Iterator[list[Writer]]:
    from leukokit.errors import OutputError
    from leukokit.registry import writers

    plugins = [writers.get(name) for name in dict.fromkeys(names)]
    if plugins:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{out}: cannot make the folder ({error.strerror}); choose another --out"
            ) from error
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(plugin(out)) for plugin in plugins]


def _print_row(console: Console, result: SmearResult, first: bool) -> None:
    """A row a result as it comes: a table that grows, because a folder may take hours."""
    from rich.table import Table
    from rich.text import Text

    counts = result.cells.counts
    ruler = result.cells.cell_diameter_px
    width = max(20, console.width - 60)
    table = Table(box=None, show_header=first, header_style="bold", pad_edge=False)
    table.add_column("image", width=width, no_wrap=True)
    for kind in counts:
        table.add_column(f"{kind}s", width=12, justify="right", no_wrap=True)
    table.add_column("red cell", width=8, justify="right")
    table.add_column("s", width=5, justify="right")
    name = str(result.smear.path or result.output_stem)
    # The end of a path tells images apart.
    name = name if len(name) <= width else f"…{name[1 - width :]}"
    figures = [str(count) for count in counts.values()]
    table.add_row(Text(name), *figures, "-" if ruler is None else f"{ruler:.0f} px", f"{result.seconds:.2f}")
    console.print(table)


def _print_files(console: Console, writers: list[Writer]) -> None:
    from rich.text import Text

    for writer in writers:
        if len(writer.files) <= 2:
            for path in writer.files:
                console.print(Text(f"wrote {path}"), soft_wrap=True)
        elif writer.files:
            console.print(
                Text(f"wrote {len(writer.files)} {writer.name} files under {writer.out}"), soft_wrap=True
            )
    console.print("Research use only; not a medical device.", style="dim")
