"""``leukokit batch`` and ``leukokit batch merge``: a folder of smears to counts, resumable."""

from __future__ import annotations

import itertools
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leukokit.cli.batch_progress import Journal, Progress, conclude

if TYPE_CHECKING:
    from leukokit.batch.outputs.tables import Totals
    from leukokit.batch.process import LookingProcess, Told
    from leukokit.batch.shard import Shard
    from leukokit.config import PipelineConfig
    from leukokit.pipeline import Pipeline
    from leukokit.writers.base import Writer


def batch(
    images: Annotated[
        list[str], typer.Argument(help="Folders, image files or patterns such as 'a/**/*.tif'.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; the same one goes on with a batch.")],
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget the batch in --out, and write over tables there.")
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
    detector: Annotated[str | None, typer.Option(help="Detector plugin.", show_default="yolo")] = None,
    graph: Annotated[str | None, typer.Option(help="Graph builder plugin.", show_default="knn")] = None,
    classifier: Annotated[
        str | None, typer.Option(help="Classifier plugin; 'none' leaves leukocytes without a class.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Pipeline as a YAML file.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. detector.confidence=0.3; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N, or several GPUs: cuda:0,cuda:1.")
    ] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images; of each process.")] = 2,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that look at images.",
            show_default="on GPUs one a core, at most 16; else 1",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="K/N: do the K-th of N parts of the images; 'leukokit batch merge' joins them."),
    ] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write cells.parquet, too; needs pyarrow (the extra 'parquet').")
    ] = False,
    log: Annotated[Path | None, typer.Option(help="File to add a line to for every image.")] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Read .pt weights, which can run any code.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Count the cells of many images; stopped at any moment, the same command goes on where it was.

    'leukokit batch merge' joins shards; a folder of that name is written './merge'.
    """
    from rich.console import Console

    from leukokit._devices import resolve_device
    from leukokit._files import make_folder
    from leukokit.batch.manifest import Manifest, done_before
    from leukokit.batch.outputs.finish import finish, spare_tables
    from leukokit.batch.outputs.parquet import require_pyarrow
    from leukokit.batch.outputs.tables import Grouping
    from leukokit.batch.process import Work, looking_processes, told_of
    from leukokit.batch.run import Batch, cores, how_many_processes
    from leukokit.batch.shard import Shard
    from leukokit.config import load_config
    from leukokit.images.inputs import find_images
    from leukokit.registry import load_file

    console = Console(stderr=True, quiet=quiet, highlight=False)
    results = Console(quiet=quiet, highlight=False)
    for path in plugin or []:
        load_file(path)
    if parquet:
        require_pyarrow()
    assignments = [*(assign or []), *(["detector.trust_pickle=true"] if trust_pickle else [])]
    settings = load_config(config, assignments, detector, graph=graph, classifier=classifier)
    _check_target(target, settings.classifier is not None)
    grouping, part = Grouping(group_by), None if shard is None else Shard.parse(shard)
    spare_tables(out, restart)
    found = find_images(images)
    devices = list(dict.fromkeys(resolve_device(name.strip()) for name in device.split(",")))
    planned = [
        (place, image)
        for place, image in enumerate(found.images)
        if part is None or part.holds(image.relative)
    ]
    started, command = datetime.now(UTC), _command()
    with ExitStack() as stack:
        # A scheduler's way to say Ctrl-C.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        if log is not None:
            # What is wrong with it, the journal says.
            with suppress(OSError):
                log.parent.mkdir(parents=True, exist_ok=True)
        journal = stack.enter_context(Journal(log))
        for problem in found.problems:
            journal.error(problem)
        if found.note:
            console.print(found.note, style="dim", markup=False)
        if not found.images:
            raise typer.Exit(1)
        if not planned:
            # A shard all the same, without which the others are not the whole.
            console.print(f"--shard {shard}: none of the {len(found.images)} images is in it", style="yellow")
        names = _writer_names(save)
        lookers: Sequence[Pipeline | LookingProcess]
        left = len(planned) - (0 if restart else done_before(out, (image for _, image in planned)))
        if several := how_many_processes(processes, devices, left):
            make_folder(out)
            threads = max(1, cores() // several)
            shared = itertools.islice(itertools.cycle(devices), several)
            work = [
                Work(settings, name, tuple(plugin or []), tuple(names), out, workers, threads)
                for name in shared
            ]
            started_processes = stack.enter_context(looking_processes(work))
            lookers, told = started_processes, started_processes[0].wait()
        else:
            pipelines = _pipelines(settings, devices, left)
            lookers, told = pipelines, told_of(pipelines[0])
        manifest = stack.enter_context(Manifest(out, _decisive(told, names, part), restart))
        gone = manifest.plan(planned)
        manifest.remember(
            {
                "classes": told.classes,
                "review_threshold": told.review_threshold,
                "provenance": told.provenance | {"device": ",".join(devices)},
                "command": command,
                "not_found": list(found.problems),
            }
        )
        if gone:
            console.print(
                f"{gone} images of the earlier batch in {out} are not among these, by name: left out; "
                "files that were saved of them stay",
                style="yellow",
            )
        chosen = [image for _, image in planned]
        # In processes of their own, they write there.
        writers = [] if several else _open_writers(names, out)
        with Progress(console, journal, len(chosen)) as progress:
            progress.begin(sum(manifest.is_done(image) for image in chosen))
            looking = Batch(lookers, manifest, writers, workers, progress.note)
            try:
                looking.run(chosen)
            except KeyboardInterrupt:
                done = sum(manifest.is_done(image) for image in chosen)
                journal.error(f"stopped: {done} of {len(chosen)} images are done; the same command goes on")
                raise typer.Exit(130) from None
            finally:
                unfinished = list(dict.fromkeys(map(str, looking.close())))
                for failure in unfinished:
                    journal.error(failure)
        seconds = round((datetime.now(UTC) - started).total_seconds(), 1)
        facts = {"shard": shard, "seconds_of_last_run": seconds}
        lacking = [*found.problems, *unfinished]
        totals, known = finish(manifest, grouping, target, parquet, facts, lacking)
        journal.info(f"done: {totals.whole.images} images, {totals.whole.failed} failed")
    conclude(results, out, totals, known, target, quiet, parquet)
    if unfinished:
        raise typer.Exit(1)
    _end(totals, found.problems)


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Folders that 'leukokit batch --shard' wrote to.")],
    out: Annotated[Path, typer.Option(help="Folder for the whole.")],
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget the batch in --out, and write over tables there.")
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(help="'folder', or a regular expression on the path, e.g. 'slide-(\\d+)'."),
    ] = None,
    target: Annotated[
        int | None, typer.Option(min=1, help="Leukocytes a differential is to have; says how many lack.")
    ] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write cells.parquet, too; needs pyarrow (the extra 'parquet').")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Join the shards of a batch: tables, report and files as one run over all images writes them."""
    from rich.console import Console

    from leukokit.batch.manifest import settings_of
    from leukokit.batch.merge import merge as join
    from leukokit.batch.outputs.finish import finish, spare_tables
    from leukokit.batch.outputs.parquet import require_pyarrow
    from leukokit.batch.outputs.tables import Grouping

    results, grouping = Console(quiet=quiet, highlight=False), Grouping(group_by)
    if parquet:
        require_pyarrow()
    _check_target(target, all(settings_of(shard).get("classifier") for shard in shards))
    spare_tables(out, restart)
    manifest, lacking = join(shards, out, restart)
    with manifest:
        totals, known = finish(manifest, grouping, target, parquet, {"command": _command()}, lacking)
    for line in lacking:
        typer.echo(f"error: {line}", err=True)
    conclude(results, out, totals, known, target, quiet, parquet)
    _end(totals, lacking)


def _end(totals: Totals, lacking: Sequence[str]) -> None:
    """End with the exit code of what could not be done."""
    whole = totals.whole
    if whole.images and whole.failed == whole.images:
        raise typer.Exit(1)
    if whole.failed or whole.waiting or lacking:
        raise typer.Exit(3)


def _check_target(target: int | None, classified: bool) -> None:
    from leukokit.errors import ConfigError

    if target is not None and not classified:
        raise ConfigError(f"--target {target}: counts leukocytes with a class; --classifier none gives none")


def _pipelines(settings: PipelineConfig, devices: list[str], images: int) -> list[Pipeline]:
    """One for every device; on a CPU, one for every core, up to a limit."""
    from leukokit.batch.run import share_cores
    from leukokit.pipeline import Pipeline

    # One there must be: it says what decides the results.
    pipelines = [Pipeline.from_config(settings, name) for name in devices[: max(images, 1)]]
    if devices == ["cpu"]:
        pipelines += [Pipeline.from_config(settings, "cpu") for _ in range(share_cores(images) - 1)]
    return pipelines


def _command() -> str:
    return shlex.join(["leukokit", *(word for word in sys.argv[1:] if word != "--debug")])


def _decisive(told: Told, writers: list[str], shard: Shard | None) -> dict[str, Any]:
    """What decides the results: another device, number of threads or of processes does not."""
    from leukokit.registry import writers as known_writers

    known = told.provenance
    # Of writers that are not leukokit's own: the files of all images are to be one version's.
    sources = {name: known_writers.get(name).source_sha256() for name in writers}
    return {
        "save": sorted(writers),
        **{f"writer {name}": source for name, source in sources.items() if source},
        "shard": None if shard is None else str(shard),
        **{key: known[key] for key in ("leukokit", "standardize", "detector", "graph", "classifier")},
    }


def _writer_names(save: str) -> list[str]:
    """Names of writers of a file an image.

    Raises:
        PluginError: no such writer.  ConfigError: one that keeps a file over all images.
    """
    from leukokit.errors import ConfigError
    from leukokit.registry import writers

    given = dict.fromkeys(name.strip() for name in save.split(","))
    names = [name for name in given if name not in ("", "none")]
    for name in names:
        if not writers.get(name).file_an_image:
            raise ConfigError(
                f"--save {name}: one file over all images, no use to a batch that is stopped; "
                "'leukokit detect' writes it"
            )
    return names


def _open_writers(names: list[str], out: Path) -> list[Writer]:
    from leukokit.registry import writers

    return [writers.get(name)(out) for name in names]
