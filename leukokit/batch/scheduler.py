"""Hands the images of a batch out to pipelines, here or in worker processes, and has results recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Final

from leukokit.batch.manifest import Manifest
from leukokit.batch.memory import MemoryBudget
from leukokit.batch.processing import FieldOutcome, RecordMaker, process_images
from leukokit.batch.recorder import Recorder
from leukokit.batch.records import Record, Stamp
from leukokit.batch.worker_process import WorkerProcess, finish_workers, kill_workers
from leukokit.errors import LeukokitError
from leukokit.images.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.writers.base import Writer, close_all

MAX_PENDING: Final = 2
"""Most results of a worker process that wait to be recorded, before it gets no further images."""


class _Images:
    """The images that wait for their turn, handed out to whoever asks next."""

    def __init__(self, images: Sequence[FoundImage]) -> None:
        self._images, self._lock, self._is_stopped = iter(images), Lock(), False

    def next(self, wait: bool) -> FoundImage | None:
        """Return the next image; None where there is none, or where all is to stop."""
        with self._lock:
            return None if self._is_stopped else next(self._images, None)

    def stop(self) -> None:
        """Hand out no more."""
        with self._lock:
            self._is_stopped = True


@dataclass(slots=True)
class Scheduler:
    """One run over images.

    Attributes:
        processors: pipelines of this process, or worker processes with one each; alike but for the device.
        manifest: where results are stored.
        writers: what a pipeline of this process saves of each image; worker processes have their own.
        workers: threads that read, shared by the pipelines of this process, which have one each at least.
        on_record: called with every image that is through.
        budget: memory that decoded images may take in this process.
    """

    processors: Sequence[Pipeline | WorkerProcess]
    manifest: Manifest
    writers: Sequence[Writer] = ()
    workers: int = 2
    on_record: Callable[[Record], None] = lambda _: None
    budget: MemoryBudget = field(default_factory=lambda: MemoryBudget.of_machine(1))

    def run(self, images: Sequence[FoundImage]) -> None:
        """Do the images that are not done; results are recorded as they come.

        Raises:
            OutputError: results cannot be saved (a full disk, ...): nothing more is tried.
        """
        waiting = _Images([image for image in images if not self.manifest.is_done(image)])
        limits = [each.config.time_limit for each in self.processors if isinstance(each, Pipeline)]
        maker = RecordMaker(self.writers, self.manifest.out, max(limits, default=0))
        with (
            Recorder(self.manifest, self.on_record) as recorder,
            ThreadPoolExecutor(len(self.processors), "process") as threads,
        ):
            try:
                if len(self.processors) == 1:
                    self._work(self.processors[0], waiting, maker, recorder)
                    return
                work = [
                    threads.submit(self._work, each, waiting, maker, recorder) for each in self.processors
                ]
                for ended in as_completed(work):
                    ended.result()
            except BaseException:
                waiting.stop()
                maker.stop()
                for processor in self.processors:
                    if isinstance(processor, Pipeline):
                        processor.stop()
                kill_workers(self._worker_processes)
                raise

    def close(self) -> list[LeukokitError]:
        """Close the writers, here and in worker processes; returns what went wrong.

        Called once, also after a failure.
        """
        return [*close_all(self.writers), *finish_workers(self._worker_processes)]

    @property
    def _worker_processes(self) -> list[WorkerProcess]:
        return [processor for processor in self.processors if isinstance(processor, WorkerProcess)]

    def _work(
        self, processor: Pipeline | WorkerProcess, images: _Images, maker: RecordMaker, recorder: Recorder
    ) -> None:
        if isinstance(processor, Pipeline):

            def keep(image: FoundImage, stamp: Stamp, outcome: FieldOutcome) -> Future[None]:
                return recorder.submit(partial(maker.make, image, stamp, outcome))

            readers = max(1, self.workers // len(self.processors))
            process_images(processor, images, readers, self.budget, keep)
            return
        pending: deque[Future[None]] = deque()
        for record in processor.records(images):
            pending.append(recorder.submit(partial(_identity, record)))
            if len(pending) > MAX_PENDING:
                pending.popleft().result()
        for recorded in pending:
            recorded.result()


def _identity(record: Record) -> Record:
    return record
