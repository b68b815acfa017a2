"""``leukokit batch``: a folder of smears to counts, resumable."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

    from leukokit.batch.manifest import Entry
    from leukokit.batch.tables import Grouping, Totals
    from leukokit.inputs import FoundImage
    from leukokit.pipeline import Pipeline
    from leukokit.writers.base import Writer


def batch(
    images: Annotated[
        list[str], typer.Argument(help="Folders, image files or patterns such as 'a/**/*.tif'.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; the same one goes on with a batch.")],
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what an earlier batch left in --out.")
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(help="'folder', or a regular expression on the path, e.g. 'slide-(\\d+)'."),
    ] = None,
    target: Annotated[
        int | None, typer.Option(min=1, help="Leukocytes a differential is to have; says how many lack.")
    ] = None,
    save: Annotated[
        str, typer.Option(help="Writers of a file an image, comma-separated: png, json, yolo, ...")
    ] = "",
    detector: Annotated[str | None, typer.Option(help="Detector plugin. [default: yolo]")] = None,
    graph: Annotated[str | None, typer.Option(help="Graph builder plugin. [default: knn]")] = None,
    classifier: Annotated[
        str | None, typer.Option(help="Classifier plugin; 'none' leaves leukocytes without a class.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Pipeline as a YAML file.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. detector.confidence=0.3; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 2,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Read .pt weights, which can run any code.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Count the cells of many images; stopped at any moment, the same command goes on where it was."""
    from rich.console import Console

    from leukokit.batch.manifest import Manifest
    from leukokit.batch.report import write_report
    from leukokit.batch.run import GALLERY, Batch
    from leukokit.batch.tables import Grouping, write_run, write_tables
    from leukokit.config import load_config
    from leukokit.inputs import find_images
    from leukokit.pipeline import Pipeline
    from leukokit.registry import load_file

    console = Console(stderr=True, quiet=quiet, highlight=False)
    for path in plugin or []:
        load_file(path)
    assignments = [*(assign or []), *(["detector.trust_pickle=true"] if trust_pickle else [])]
    settings = load_config(config, assignments, detector, graph=graph, classifier=classifier)
    grouping = Grouping(group_by)
    pipeline = Pipeline(settings, device)
    found = find_images(images)
    for problem in found.problems:
        typer.echo(f"error: {problem}", err=True)
    if not found.images:
        raise typer.Exit(1)
    started = time.time()
    with Manifest(out, _decisive(pipeline, save), restart) as manifest:
        writers = _writers(save, out)
        with _Progress(console, len(found.images)) as progress:
            done = sum(manifest.is_done(image) for image in found.images)
            progress.begin(done)
            try:
                Batch(
                    pipeline,
                    manifest,
                    writers,
                    workers=workers,
                    together=8 if pipeline.device.startswith("cuda") else 1,
                    note=progress.note,
                ).run(found.images)
            except KeyboardInterrupt:
                typer.echo("stopped; the same command goes on where it was", err=True)
                raise typer.Exit(130) from None
            finally:
                for writer in writers:
                    writer.close()
        classes = pipeline.classifier.classes if pipeline.classifier else ()
        failures: list[Entry] = []
        entries = _watched((manifest.entry(image) for image in found.images), failures)
        totals = write_tables(out, entries, classes, grouping, target)
        command = shlex.join(["leukokit", *(word for word in sys.argv[1:] if word != "--debug")])
        document = _run_document(pipeline, found.images, totals, command, started)
        write_run(out, document)
        counted = {image.relative for image in found.images}
        # The folder may hold images of an earlier run that are not asked for now.
        thumbnails = (cell for cell in manifest.thumbnails(GALLERY) if cell.name in counted)
        write_report(out, totals, thumbnails, failures, document, target)
    _print_totals(console, totals, grouping, target)
    names = "report.html, counts.csv, cells.csv, differential.csv, failures.csv, run.json"
    typer.echo(f"wrote {out}/{names}", err=quiet)
    if totals.whole.failed or found.problems:
        raise typer.Exit(3 if totals.whole.failed < totals.whole.images else 1)


def _watched(entries: Iterable[Entry | None], failures: list[Entry]) -> Iterator[Entry]:
    """The entries there are; on their way, as many failures as the report shows are put aside."""
    from leukokit.batch.report import MOST_FAILURES

    for entry in entries:
        if entry is None:
            continue
        if entry.error and len(failures) < MOST_FAILURES:
            failures.append(entry)
        yield entry


def _decisive(pipeline: Pipeline, save: str) -> dict[str, Any]:
    """What decides the results: another device or number of threads does not."""
    known = pipeline.provenance
    return {
        "save": sorted(_names(save)),
        **{key: known[key] for key in ("leukokit", "standardize", "detector", "graph", "classifier")},
    }


def _names(save: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in save.split(",") if name.strip()))


def _writers(save: str, out: Path) -> list[Writer]:
    from leukokit.errors import ConfigError
    from leukokit.registry import writers

    plugins = [writers.get(name) for name in _names(save)]
    for plugin in plugins:
        if not plugin.file_an_image:
            raise ConfigError(
                f"--save {plugin.name}: one file over all images, no use to a batch that is stopped; "
                "'leukokit detect' writes it"
            )
    return [plugin(out) for plugin in plugins]


def _run_document(
    pipeline: Pipeline, images: Sequence[FoundImage], totals: Totals, command: str, started: float
) -> dict[str, Any]:
    from datetime import UTC, datetime

    whole = totals.whole
    return {
        "schema": 1,
        "use": "Research use only; not a medical device.",
        "command": command,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_of_last_run": round(time.time() - started, 1),
        "seconds_over_images": round(totals.seconds, 1),
        "images": {"found": len(images), "done": whole.images - whole.failed, "failed": whole.failed},
        "counts": dict(whole.kinds),
        "differential": whole.count.to_json() if whole.classes else None,
        "provenance": pipeline.provenance,
    }


class _Progress:
    """A bar on the terminal: images done, failures, time left."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.failures = 0
        self._bar = Progress(
            TextColumn("images"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("images", total=total, rate="", failed="")
        self._begun, self._through, self._console = time.monotonic(), 0, console

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, done: int) -> None:
        """Say what an earlier run has done."""
        self._begun = time.monotonic()
        if done:
            self._bar.update(self._task, completed=done)
            self._console.print(f"going on: {done} images were done before")

    def note(self, image: FoundImage, error: str) -> None:
        """An image is through."""
        self._through += 1
        if error:
            self.failures += 1
            typer.echo(f"error: {error}", err=True)
        rate = self._through / max(time.monotonic() - self._begun, 1e-6)
        failed = f"{self.failures} failed" if self.failures else ""
        self._bar.update(self._task, advance=1, rate=f"{rate:.1f}/s", failed=failed)


def _print_totals(console: Console, totals: Totals, grouping: Grouping, target: int | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from leukokit.batch.tables import still_needed

    rows = [*sorted(totals.groups.items()), ("all images", totals.whole)]
    classes = list(totals.whole.classes)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "images", "failed", "leukocytes", *classes, *(["still needed"] if target else [])):
        table.add_column(title, justify="right" if title else "left")
    for name, group in rows[:20] + rows[-1:] if len(rows) > 21 else rows:
        figures = [group.images, group.failed, group.kinds["leukocyte"], *(group.classes[c] for c in classes)]
        needed = [str(still_needed(group.count, target))] if target else []
        table.add_row(Text(name or "."), *(str(figure) for figure in figures), *needed)
    console.print(table)
    if len(rows) > 21:
        console.print(f"and {len(rows) - 21} more groups in differential.csv")
    if totals.whole.classes and totals.whole.count.few:
        said = f"n = {totals.whole.count.n}: a differential count wants 100 classified leukocytes or more."
        console.print(said, style="yellow")
    console.print("Research use only; not a medical device.", style="dim")
