"""Running a batch: many images to tables and a report, resumable at any moment."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leukokit._devices import resolve_device
from leukokit._files import make_folder
from leukokit._text import printable
from leukokit.batch.isolation import has_foreign_plugins, plugin_files
from leukokit.batch.manifest import Manifest, count_done
from leukokit.batch.manifest_files import protected_paths
from leukokit.batch.memory import MemoryBudget
from leukokit.batch.messages import PipelineDescription, WorkerSettings
from leukokit.batch.outputs.grouping import Grouping
from leukokit.batch.outputs.parquet import require_pyarrow
from leukokit.batch.outputs.write import OutputOptions, remove_tables, require_free_tables, write_outputs
from leukokit.batch.records import Record
from leukokit.batch.resources import process_count, share_cores
from leukokit.batch.scheduler import Scheduler
from leukokit.batch.shard import Shard
from leukokit.batch.summary import BatchProgress, BatchSummary
from leukokit.batch.worker_process import WorkerProcess, start_workers
from leukokit.batch.writing import open_writers, writer_names, writer_settings
from leukokit.config import PipelineConfig
from leukokit.engines.cpu import cores
from leukokit.errors import ConfigError, ImageError
from leukokit.images.inputs import FoundImage, FoundImages, find_images
from leukokit.pipeline import Pipeline
from leukokit.writers.base import Writer

OnProgress = Callable[[BatchProgress], None]
_log = logging.getLogger("leukokit")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch is run; nothing here but ``save`` and ``shard`` decides its results.

    Attributes:
        save: writers of a file per image, as a list or as text such as ``png,json``.
        shard: which part of the images to do, e.g. ``2/8``; ``merge_shards`` joins the parts.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or several GPUs: ``cuda:0,cuda:1``.
        workers: threads that read images, per process.
        processes: worker processes; 0 for none, None for as many as help: several on GPUs, at least one
            where a plugin is not leukokit's own and may hang or end its process, else none.
        restart: discard what the folder holds of an earlier batch.
        overwrite: let writers replace files in the folder that no batch wrote.
        command: the command line, for the record.
    """

    save: str | Sequence[str] = ()
    shard: Shard | str | None = None
    device: str = "auto"
    workers: int = 2
    processes: int | None = None
    restart: bool = False
    overwrite: bool = False
    command: str | None = None


def run_batch(
    images: Sequence[str | Path] | str | Path,
    out: str | Path,
    config: PipelineConfig | None = None,
    options: BatchOptions | None = None,
    *,
    group_by: str | None = None,
    target: int | None = None,
    parquet: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> BatchSummary:
    """Count the cells of many images into a folder; a batch that was stopped resumes where it was.

    >>> import tempfile
    >>> from leukokit.batch import run_batch
    >>> summary = run_batch("examples/smear.png", tempfile.mkdtemp())
    >>> summary.whole.done, summary.whole.kinds["leukocyte"]
    (1, 10)

    Images that fail cost no others: each is a row of ``failures.csv``. Warnings go to the logger
    ``leukokit``.

    Args:
        images: files, folders or patterns such as ``a/**/*.tif``.
        out: folder for tables, report and files; made where it does not exist.
        config: the pipeline; by default leukokit's own plugins.
        options: how the batch is run.
        group_by: count images together by ``folder``, or by a regular expression on their path.
        target: leukocytes that each differential count should have.
        parquet: also write ``cells.parquet``; needs pyarrow.
        on_progress: called at the start and after each image, from another thread than the caller's.

    Raises:
        ImageError: there is no image.
        ConfigError: a setting is wrong, or ``out`` holds another batch.
        PluginError: a plugin cannot be started.
        OutputError: results cannot be saved; what was done before is.
        KeyboardInterrupt: the batch was stopped; the same call resumes it.
    """
    config, options = config or PipelineConfig(), options or BatchOptions()
    out = Path(os.path.abspath(out))  # noqa: PTH100  # a plugin may change the working folder
    started = datetime.now(UTC)
    if parquet:
        require_pyarrow()
    require_classifier(target, config.classifier is not None)
    outputs = OutputOptions(Grouping(group_by), target, parquet)
    shard = Shard.parse(options.shard) if isinstance(options.shard, str) else options.shard
    names = writer_names(options.save)
    require_free_tables(out, options.restart)
    found = _find([images] if isinstance(images, str | Path) else images)
    outputs.grouping.groups_of([image.relative.as_posix() for image in found.images])
    planned = _plan(found, shard)
    chosen = [image for _, image in planned]
    devices = list(dict.fromkeys(resolve_device(name.strip()) for name in options.device.split(",")))
    protected = frozenset[str]() if options.overwrite else protected_paths(out)
    left = len(chosen) - (0 if options.restart else count_done(out, chosen))
    with ExitStack() as stack:
        processors, description = stack.enter_context(
            _processors(config, options, names, out, devices, left, protected)
        )
        settings = _deciding(description, writer_settings(names, config), shard)
        manifest = stack.enter_context(Manifest(out, settings, options.restart, protected))
        is_here = any(isinstance(processor, Pipeline) for processor in processors)
        writers = open_writers(names, config, out, protected) if is_here else []
        _remember(manifest, planned, found, description, devices, options)
        unfinished = _process_images(manifest, processors, chosen, writers, options.workers, on_progress)
        seconds = round((datetime.now(UTC) - started).total_seconds(), 1)
        facts = {"shard": None if shard is None else str(shard), "seconds_of_last_run": seconds}
        summary = write_outputs(manifest, outputs, facts, [*found.problems, *unfinished])
    _log.info("done: %d images, %d failed", summary.whole.images, summary.whole.failed)
    return summary


def require_classifier(target: int | None, is_classified: bool) -> None:
    """Refuse a target of classified leukocytes where no classifier gives any.

    Raises:
        ConfigError: there is a target and no classifier.
    """
    if target is not None and not is_classified:
        raise ConfigError(f"--target {target}: counts leukocytes with a class; --classifier none gives none")


def _find(images: Sequence[str | Path]) -> FoundImages:
    """The images, of which there is at least one.

    Raises:
        ImageError: there is none.
    """
    found = find_images(images)
    problems = list(found.problems)
    if not found.images:
        last = problems.pop() if problems else "no image was named"
        for problem in problems:
            _log.error(problem)
        raise ImageError(last)
    for problem in problems:
        _log.error(problem)
    for note in found.notes:
        _log.info(note)
    return found


def _plan(found: FoundImages, shard: Shard | None) -> list[tuple[int, FoundImage]]:
    """The images to do, each with its place among all."""
    planned = [
        (place, image)
        for place, image in enumerate(found.images)
        if shard is None or shard.contains(image.relative)
    ]
    if not planned:
        # A shard all the same, without which the others are not the whole.
        _log.warning("--shard %s: none of the %d images is in it", shard, len(found.images))
    return planned


@contextmanager
def _processors(
    config: PipelineConfig,
    options: BatchOptions,
    names: Sequence[str],
    out: Path,
    devices: list[str],
    left: int,
    protected: frozenset[str],
) -> Iterator[tuple[Sequence[Pipeline | WorkerProcess], PipelineDescription]]:
    """What does the images, and the description of it: worker processes, or pipelines of this one."""
    isolate = has_foreign_plugins(config, names)
    if not (count := process_count(options.processes, devices, left, isolate)):
        # One there must be: it says what decides the results.
        pipelines = []
        for name in devices[: max(left, 1)]:
            number, threads = share_cores(left) if name == "cpu" else (1, 0)
            pipelines += [Pipeline.from_config(config, name, threads) for _ in range(number)]
        yield pipelines, PipelineDescription.of(pipelines[0])
        return
    make_folder(out)
    threads, memory = max(1, cores() // count), MemoryBudget.of_machine(count).total
    settings = [
        WorkerSettings(
            config, name, plugin_files(), tuple(names), out, options.workers, threads, memory, protected
        )
        for name in itertools.islice(itertools.cycle(devices), count)
    ]
    with start_workers(settings) as workers:
        yield workers, workers[0].wait()


def _deciding(
    description: PipelineDescription, writers: dict[str, Any], shard: Shard | None
) -> dict[str, Any]:
    """What decides the results: another device, number of threads or of processes does not."""
    known = description.provenance
    return {
        **writers,
        "shard": None if shard is None else str(shard),
        **{key: known[key] for key in ("leukokit", "standardize", "detector", "graph", "classifier")},
    }


def _remember(
    manifest: Manifest,
    planned: Sequence[tuple[int, FoundImage]],
    found: FoundImages,
    description: PipelineDescription,
    devices: Sequence[str],
    options: BatchOptions,
) -> None:
    gone = manifest.plan(planned)
    digest = hashlib.sha256(b"\0".join(os.fsencode(image.relative) for image in found.images))
    manifest.remember(
        {
            "classes": description.classes,
            "review_threshold": description.review_threshold,
            "classifier_tests": description.tests,
            "provenance": description.provenance | {"device": ",".join(devices)},
            "command": options.command,
            "not_found": list(found.problems),
            "input_notes": list(found.notes),
            # Shards of one batch were made of the same images.
            "all_images": {"count": len(found.images), "sha256": digest.hexdigest()},
        }
    )
    if gone:
        _log.warning(
            "%d images of the earlier batch in %s are not among these, by name: left out; "
            "files that were saved of them stay",
            gone,
            printable(manifest.out),
        )


def _process_images(
    manifest: Manifest,
    processors: Sequence[Pipeline | WorkerProcess],
    images: Sequence[FoundImage],
    writers: Sequence[Writer],
    workers: int,
    on_progress: OnProgress,
) -> list[str]:
    """Do the images; returns what the writers failed at when they were closed, a line each."""
    counter = _Counter(images, sum(manifest.is_done(image) for image in images), on_progress)
    if counter.done < len(images):
        remove_tables(manifest.out)
    counter.start()
    scheduler = Scheduler(processors, manifest, writers, workers, counter.add)
    try:
        scheduler.run(images)
    finally:
        unfinished = list(dict.fromkeys(str(error) for error in scheduler.close()))
        for failure in unfinished:
            _log.error(failure)
    return unfinished


class _Counter:
    """Counts what is through, and reports it."""

    def __init__(self, images: Sequence[FoundImage], done: int, on_progress: OnProgress) -> None:
        self.total, self.done, self._done_before, self._failed = len(images), done, done, 0
        self._on_progress = on_progress

    def start(self) -> None:
        """Report what an earlier run has done."""
        _log.info("%d images, %d of them done before", self.total, self.done)
        self._on_progress(BatchProgress(self.total, self.done, self._done_before))

    def add(self, record: Record) -> None:
        """Count an image and report it."""
        if record.error:
            self._failed += 1
            _log.error(record.error)
        else:
            self.done += 1
            _log.info("%s: done", printable(record.image.path))
        self._on_progress(
            BatchProgress(
                self.total, self.done, self._done_before, self._failed, record.image.path, record.error
            )
        )
