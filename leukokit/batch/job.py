"""A batch as it was asked for, and what does its images."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from leukokit._devices import resolve_device
from leukokit._files import make_folder
from leukokit._text import printable
from leukokit.batch.isolation import has_foreign_plugins, plugin_files
from leukokit.batch.manifest import Manifest, count_done
from leukokit.batch.manifest_files import protected_paths
from leukokit.batch.memory import MemoryBudget
from leukokit.batch.messages import PipelineDescription, WorkerSettings
from leukokit.batch.outputs.write import remove_tables, require_free_tables
from leukokit.batch.records import Record
from leukokit.batch.resources import opencv_threads, process_count, share_cores
from leukokit.batch.scheduler import Scheduler
from leukokit.batch.shard import Shard
from leukokit.batch.summary import BatchProgress
from leukokit.batch.worker_process import WorkerProcess, start_workers
from leukokit.batch.writing import open_writers, writer_names, writer_settings
from leukokit.config import PipelineConfig
from leukokit.engines.cpu import cores
from leukokit.errors import ImageError
from leukokit.images.inputs import FoundImage, FoundImages, find_images
from leukokit.pipeline import Pipeline

OnProgress = Callable[[BatchProgress], None]
Processors = Sequence[Pipeline | WorkerProcess]
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


@dataclass(frozen=True, slots=True)
class Job:
    """A batch that was checked and can start.

    Attributes:
        config: the pipeline's.
        options: how it is run.
        out: its folder, absolute.
        writers: names of the writers of a file per image.
        shard: which part of the images it does; None for all.
        found: all images, those of other shards included.
        planned: the images to do, each with its place among all.
        devices: where networks run.
        protected: paths below the folder that writers may not replace.
    """

    config: PipelineConfig
    options: BatchOptions
    out: Path
    writers: Sequence[str]
    shard: Shard | None
    found: FoundImages
    planned: Sequence[tuple[int, FoundImage]]
    devices: Sequence[str]
    protected: frozenset[str]

    @classmethod
    def prepare(
        cls, images: Sequence[str | Path], out: Path, config: PipelineConfig, options: BatchOptions
    ) -> Self:
        """Find the images and check the options.

        Raises:
            ImageError: there is no image.
            ConfigError: an option is wrong, or the folder holds tables of something else.
            PluginError: no such writer.
        """
        # A plugin may change the working folder.
        out = Path(os.path.abspath(out))  # noqa: PTH100
        shard = Shard.parse(options.shard) if isinstance(options.shard, str) else options.shard
        names = writer_names(options.save)
        require_free_tables(out, options.restart)
        found = _find(images)
        return cls(
            config=config,
            options=options,
            out=out,
            writers=names,
            shard=shard,
            found=found,
            planned=_plan(found, shard),
            devices=list(dict.fromkeys(resolve_device(name.strip()) for name in options.device.split(","))),
            protected=frozenset() if options.overwrite else protected_paths(out),
        )

    @property
    def images(self) -> list[FoundImage]:
        """The images to do."""
        return [image for _, image in self.planned]

    @contextmanager
    def processors(self) -> Iterator[tuple[Processors, PipelineDescription]]:
        """Start what does the images, and yield it with its description."""
        left = len(self.planned) - (0 if self.options.restart else count_done(self.out, self.images))
        isolate = has_foreign_plugins(self.config, self.writers)
        count = process_count(self.options.processes, self.devices, left, isolate)
        if count:
            make_folder(self.out)
            with start_workers(self._worker_settings(count)) as workers:
                yield workers, workers[0].wait()
            return
        pipelines = []
        # One there must be: it says what decides the results.
        for name in self.devices[: max(left, 1)]:
            number, threads = share_cores(left) if name == "cpu" else (1, 0)
            pipelines += [Pipeline.from_config(self.config, name, threads) for _ in range(number)]
        with opencv_threads(max(1, cores() // len(pipelines))):
            yield pipelines, PipelineDescription.of(pipelines[0])

    def settings(self, description: PipelineDescription) -> dict[str, Any]:
        """Return what decides the results: another device, number of threads or of processes does not."""
        known = description.provenance
        return {
            **writer_settings(self.writers, self.config),
            "shard": None if self.shard is None else str(self.shard),
            **{key: known[key] for key in ("leukokit", "standardize", "detector", "graph", "classifier")},
        }

    def remember(self, manifest: Manifest, description: PipelineDescription) -> None:
        """Record the plan and the facts of the batch."""
        gone = manifest.plan(self.planned)
        names = (os.fsencode(image.relative) for image in self.found.images)
        manifest.remember(
            {
                "classes": description.classes,
                "review_threshold": description.review_threshold,
                "classifier_tests": description.tests,
                "provenance": description.provenance | {"device": ",".join(self.devices)},
                "command": self.options.command,
                "not_found": list(self.found.problems),
                "input_notes": list(self.found.notes),
                # Shards of one batch were made of the same images.
                "all_images": {
                    "count": len(self.found.images),
                    "sha256": hashlib.sha256(b"\0".join(names)).hexdigest(),
                },
            }
        )
        if gone:
            _log.warning(
                "%d images of the earlier batch in %s are not among these, by name: left out; "
                "files that were saved of them stay",
                gone,
                printable(manifest.out),
            )

    def process(self, manifest: Manifest, processors: Processors, on_progress: OnProgress) -> list[str]:
        """Do the images; returns what the writers failed at when they were closed, a line each.

        Raises:
            OutputError: results cannot be saved; nothing more is tried.
        """
        images = self.images
        counter = _Counter(images, sum(manifest.is_done(image) for image in images), on_progress)
        if counter.done < len(images):
            remove_tables(manifest.out)
        counter.start()
        is_here = any(isinstance(processor, Pipeline) for processor in processors)
        writers = open_writers(self.writers, self.config, self.out, self.protected) if is_here else []
        scheduler = Scheduler(processors, manifest, writers, self.options.workers, counter.add)
        try:
            scheduler.run(images)
        finally:
            unfinished = list(dict.fromkeys(str(error) for error in scheduler.close()))
            for failure in unfinished:
                _log.error(failure)
        return unfinished

    def _worker_settings(self, count: int) -> list[WorkerSettings]:
        return [
            WorkerSettings(
                config=self.config,
                device=name,
                plugin_files=plugin_files(),
                writers=tuple(self.writers),
                out=self.out,
                workers=self.options.workers,
                threads=max(1, cores() // count),
                memory=MemoryBudget.of_machine(count).total,
                protected=self.protected,
            )
            for name in itertools.islice(itertools.cycle(self.devices), count)
        ]


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
