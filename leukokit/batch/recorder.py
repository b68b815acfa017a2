"""The thread that saves results and records them in the manifest, several images at once where they wait."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Final, Self

from leukokit.batch.manifest import Manifest
from leukokit.batch.records import Record

MAX_GROUP: Final = 16
"""Most images that reach the disk together."""
_Job = tuple[Callable[[], Record], "Future[None]"]


class Recorder:
    """Makes records and stores them in a thread. A context manager, which waits until all are stored.

    Images that wait are stored together: each wait for the disk then serves several of them, and an image
    that comes alone is stored at once.

    Args:
        manifest: where records are stored; no other thread writes to it meanwhile.
        on_record: called after each is stored.
    """

    def __init__(self, manifest: Manifest, on_record: Callable[[Record], None]) -> None:
        self._manifest, self._on_record = manifest, on_record
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="record", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        self._thread.join()

    def submit(self, make: Callable[[], Record]) -> Future[None]:
        """Have a record made and stored; the future is done when it is, or holds why it is not."""
        future: Future[None] = Future()
        self._jobs.put((make, future))
        return future

    def _run(self) -> None:
        while group := self._next_group():
            made = []
            for make, future in group:
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    made.append((make(), future))
                except BaseException as error:
                    future.set_exception(error)
            self._store(made)

    def _store(self, made: list[tuple[Record, Future[None]]]) -> None:
        try:
            self._manifest.record([record for record, _ in made])
        except BaseException as error:
            for _, future in made:
                future.set_exception(error)
            return
        for record, future in made:
            try:
                self._on_record(record)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

    def _next_group(self) -> list[_Job]:
        """Wait for a job; return it with those behind it, or nothing at the end."""
        group = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == MAX_GROUP:
                break
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
        if job is None and group:
            # The end is left for the next time.
            self._jobs.put(None)
        return group
