"""A worker process from within: images in, records and lines of its log out."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from leukokit import errors
from leukokit._guard import TimeLimit
from leukokit.batch.memory import MemoryBudget
from leukokit.batch.messages import Busy, Failure, LogLine, PipelineDescription, WorkerSettings
from leukokit.batch.processing import FieldOutcome, RecordMaker, process_images
from leukokit.batch.records import Record, Stamp
from leukokit.batch.writing import open_writers
from leukokit.errors import LeukokitError, cause_of
from leukokit.images.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.registry import load_plugin_file
from leukokit.writers.base import close_all

ORPHAN_GRACE: Final = 30.0
"""Seconds beyond its time limit after which a process ends itself, where no batch is left to end it."""
_log = logging.getLogger("leukokit")


class _Port(logging.Handler):
    """The end of the connection to the batch."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._sending = connection, threading.Lock()
        self._images: SimpleQueue[FoundImage | None] = SimpleQueue()
        self._folder, self._deadline = Path.cwd(), 0.0
        self._nowhere = Path(os.devnull).open("w")  # noqa: SIM115  # until the process ends
        # A process that a plugin forks must not keep the connection open.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=connection.close)
        # Taken from the pipe at once: the batch, which sends them, must not wait while this process does.
        threading.Thread(target=self._receive, name="images", daemon=True).start()

    def _receive(self) -> None:
        try:
            while (image := self._connection.recv()) is not None:
                self._images.put(image)
        except (EOFError, OSError):
            # The batch is gone. Whatever still runs here is of no use.
            os._exit(1)
        self._images.put(None)

    def next(self, wait: bool) -> FoundImage | None:
        """Return the next image; see ``ImageSource``."""
        if wait and self._images.empty():
            faulthandler.cancel_dump_traceback_later()
        try:
            image = self._images.get(block=wait)
        except Empty:
            return None
        if image is None:
            # For whoever asks once more.
            self._images.put(None)
        return image

    def send(self, message: object) -> None:
        """Tell the batch; where it is gone, this process ends."""
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)

    def expect(self, seconds: float) -> None:
        """A call that may take so long begins: the batch ends this process where it takes longer.

        So does a timer, which needs no Python: the call may keep the interpreter, and the batch be gone.
        """
        # A plugin may have changed it.
        with suppress(OSError):
            os.chdir(self._folder)
        self.send(Busy(seconds))
        self._deadline = max(self._deadline, time.monotonic() + seconds + ORPHAN_GRACE)
        left = min(self._deadline - time.monotonic(), threading.TIMEOUT_MAX)
        faulthandler.dump_traceback_later(left, exit=True, file=self._nowhere)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the batch what should be logged."""
        self.send(LogLine(record.levelno, record.getMessage()))


def run_worker(connection: Connection, settings: WorkerSettings) -> None:
    """Do images until there are no more; never returns."""
    _detach()
    port = _Port(connection)
    _log.addHandler(port)
    TimeLimit.on_start = staticmethod(port.expect)
    try:
        failures = _process_until_done(port, settings)
    except LeukokitError as error:
        failures = [error]
    except BaseException as error:  # whatever a plugin's file raises
        failures = [LeukokitError(f"a worker process failed ({cause_of(error)}); --processes 0 uses none")]
    for failure in failures:
        _send_failure(port, failure)
    # At once: a plugin's thread that hangs does not end with the interpreter.
    os._exit(0)


def _detach() -> None:
    """Leave Ctrl-C and the terminal's output to the batch, and be ended together with what plugins start."""
    if hasattr(os, "setsid"):
        with suppress(OSError):
            os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored, which a tool that a plugin starts would inherit, and then could not be ended.
    signal.signal(signal.SIGTERM, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with suppress(OSError, ValueError):
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _send_failure(port: _Port, failure: LeukokitError) -> None:
    kind = next(base for base in type(failure).__mro__ if hasattr(errors, base.__name__))
    port.send(Failure(kind.__name__, str(failure)))


def _process_until_done(port: _Port, settings: WorkerSettings) -> list[LeukokitError]:
    """Do images until there are no more; returns what the writers fail at when they are closed."""
    import cv2

    cv2.setNumThreads(settings.threads)
    for path in settings.plugin_files:
        load_plugin_file(path)
    pipeline = Pipeline.from_config(settings.config, settings.device, settings.threads)
    writers = open_writers(settings.writers, settings.config, settings.out, settings.protected)
    maker = RecordMaker(writers, settings.out, settings.config.time_limit)
    try:
        with ThreadPoolExecutor(1, "record") as recorder:
            port.send(PipelineDescription.of(pipeline))

            make = _unsaved if settings.returns_results else maker.make

            def keep(image: FoundImage, stamp: Stamp, outcome: FieldOutcome) -> Future[None]:
                return recorder.submit(_send_record, port, partial(make, image, stamp, outcome))

            process_images(pipeline, port, settings.workers, MemoryBudget(settings.memory), keep)
    finally:
        failures = close_all(writers)
    return failures


def _unsaved(image: FoundImage, stamp: Stamp, outcome: FieldOutcome) -> Record:
    if isinstance(outcome, LeukokitError):
        return Record(image, error=str(outcome))
    return Record(image, stamp, result=outcome)


def _send_record(port: _Port, make: Callable[[], Record]) -> None:
    try:
        port.send(make())
    except BaseException as error:
        # At once: this process waits for more images, and the batch for this one.
        failure = (
            error if isinstance(error, LeukokitError) else LeukokitError(f"unexpected {cause_of(error)}")
        )
        _send_failure(port, failure)
        raise
