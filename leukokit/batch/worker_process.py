"""Worker processes as the batch sees them.

A GPU waits for Python most of the time: one process prepares fields for it at a fraction of the pace that it
could take. And code that is not leukokit's may hang, keep the interpreter, or end its process. Each worker
process has its own pipeline, reads images, processes them and writes their files; what the manifest keeps of
them goes back to the batch, which alone writes to it.

A process that dies or does not answer, whatever the cause (native code of a plugin, the system out of
memory), costs the image that it died on, and no other.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from threading import Lock
from typing import Final

from leukokit import errors
from leukokit._text import printable
from leukokit.batch.messages import Busy, Failure, LogLine, PipelineDescription, WorkerSettings
from leukokit.batch.processing import ImageSource, images_at_once
from leukokit.batch.records import Record
from leukokit.batch.worker import run_worker
from leukokit.errors import LeukokitError, PluginError
from leukokit.images.inputs import FoundImage

PATIENCE: Final = 10.0
"""Seconds that processes are given to end by themselves."""
GRACE: Final = 5.0
"""Seconds beyond its time limit that a process is given to notice by itself."""
MAX_STARTS: Final = 3
"""Times that a process is started which dies before its first image."""
_THREADS: Final = "OMP_NUM_THREADS"
_ENVIRONMENT: Final = Lock()
"""Held while the environment is changed for a process that is started."""
_log = logging.getLogger("leukokit")


@contextmanager
def start_workers(settings: Sequence[WorkerSettings]) -> Iterator[list[WorkerProcess]]:
    """Start worker processes, and end them with the block."""
    processes: list[WorkerProcess] = []
    try:
        processes += [WorkerProcess(each) for each in settings]
        yield processes
    finally:
        kill_workers(processes)


def finish_workers(processes: Sequence[WorkerProcess]) -> list[LeukokitError]:
    """Let processes end, for which there are no more images; returns what they fail at."""
    for process in processes:
        process.release()
    deadline = time.monotonic() + PATIENCE
    return [error for process in processes for error in process.last_errors(deadline)]


def kill_workers(processes: Sequence[WorkerProcess]) -> None:
    """End processes now, whatever they do. Threads that wait for their records wait no longer."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join(time.monotonic() + PATIENCE)


class WorkerProcess:
    """A process that does images; started when made."""

    _description: PipelineDescription | None = None
    _deadline = float("inf")
    _is_overdue = False

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        # No process is started any more once they are to end.
        self._starting, self._is_ended = Lock(), False
        self._start()

    def wait(self) -> PipelineDescription:
        """Return the description of its pipeline; waits until there is one.

        Raises:
            LeukokitError: there will be none, and why.
        """
        starts = 1
        while self._description is None:
            try:
                self._receive()
            except EOFError:
                how = self._death()
                if starts == MAX_STARTS or self._is_ended:
                    raise PluginError(
                        f"a worker process {how} at its start; --processes 0 uses none"
                    ) from None
                starts += 1
                self._start()
        return self._description

    def records(self, source: ImageSource) -> Iterator[Record]:
        """Have all images of a source done; yields each as it is through.

        Raises:
            LeukokitError: results cannot be saved, or the process does not even start.
        """
        # What waits in it while the networks work on as many, and a few more.
        ahead = 2 * images_at_once(self.settings.device) + self.settings.workers + 1
        sent: dict[FoundImage, None] = {}
        suspects: deque[FoundImage] = deque()
        while not self._is_ended:
            # An image for a process that is not ready would wait longer than for another.
            self.wait()
            # Those that a dead process had are done one by one: the one to blame is then alone.
            while len(sent) < (1 if suspects else ahead):
                image = suspects.popleft() if suspects else source.next(wait=not sent)
                if image is None:
                    break
                sent[image] = None
                # Where it died, the next answer will not come, which is noticed then.
                with suppress(OSError):
                    self._connection.send(image)
            if not sent:
                return
            try:
                record = self._receive()
            except EOFError:
                if self._is_ended:
                    return
                how = self._death()
                _log.warning("a worker process %s; another one takes over its images", how)
                if len(sent) == 1:
                    (image,) = sent
                    yield Record(image, error=f"{printable(image.path)}: its worker process {how}")
                else:
                    suspects.extendleft(reversed(sent))
                sent.clear()
                self._start()
                continue
            if record is not None:
                del sent[record.image]
                yield record

    def release(self) -> None:
        """Let it end: there are no more images."""
        with suppress(OSError):
            self._connection.send(None)

    def last_errors(self, deadline: float) -> Iterator[LeukokitError]:
        """Yield what it fails at until it has ended, ``deadline`` (time.monotonic) at most."""
        if self._is_ended:
            return
        try:
            while self._connection.poll(max(0.0, deadline - time.monotonic())):
                try:
                    self._receive()
                except LeukokitError as error:
                    yield error
            how = f"took longer than {PATIENCE:g} s"
        except (EOFError, OSError):
            how = self._death()
            if not self._process.exitcode:
                return
        yield PluginError(f"a worker process whose writers were closing {how}: their files may be incomplete")

    def join(self, deadline: float) -> None:
        """Wait until it has ended, until ``deadline`` (time.monotonic) at most."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        self._kill_group()

    def kill(self) -> None:
        """End it now; it is not started again."""
        with self._starting:
            self._is_ended = True
            self._kill_group()
            self._process.kill()

    def _start(self) -> None:
        context = get_context("spawn")
        with self._starting:
            if self._is_ended:
                return
            self._description = None
            self._deadline, self._is_overdue = float("inf"), False
            self._connection, other = context.Pipe()
            self._process = context.Process(target=run_worker, args=(other, self.settings))
            with _without_interrupts(), _threads(self.settings.threads):
                self._process.start()
            # Only the worker process holds this end: when it dies, this process notices.
            other.close()

    def _death(self) -> str:
        """How the process died."""
        self._process.join()
        # What plugins started goes with it.
        self._kill_group()
        if self._is_overdue:
            return "took longer than 'time_limit' allows and was ended"
        code = self._process.exitcode or 0
        if code >= 0:
            return f"ended (exit code {code})"
        with suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
        return f"was killed (signal {-code})"

    def _kill_group(self) -> None:
        """End what the process leads: itself, and whatever plugins started in it."""
        if self._process.pid is not None and hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _later(self, seconds: float) -> float:
        """When the process must have been heard of again, with calls that it began before in mind."""
        soon = time.monotonic() + seconds
        return soon if self._deadline == float("inf") else max(self._deadline, soon)

    def _receive(self) -> Record | None:
        """Return the next image that is through; None after something about the process itself.

        Raises:
            EOFError: it died, or took too long and was killed.
            LeukokitError: it does nothing more.
        """
        try:
            # Its end of the pipe may outlive it, in a process that a plugin started.
            while not self._connection.poll(1.0):
                if time.monotonic() > self._deadline:
                    self._is_overdue = True
                    self._kill_group()
                    self._process.kill()
                    raise EOFError
                if self._process.exitcode is not None and not self._connection.poll():
                    raise EOFError
            message = self._connection.recv()
        except OSError as error:
            raise EOFError from error
        if isinstance(message, Busy):
            self._deadline = self._later(message.seconds + GRACE)
        elif isinstance(message, PipelineDescription):
            self._description = message
        elif isinstance(message, LogLine):
            _log.log(message.level, "%s", message.message)
        elif isinstance(message, Failure):
            raise getattr(errors, message.kind)(message.message)
        else:
            record: Record = message
            return record
        return None


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started within is not stopped by Ctrl-C or SIGTERM: the batch is, and ends its processes."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started with the first process, it would lift the mask.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let numpy in what is started within use so many threads, not one per core, unless the user chose.

    Its OpenBLAS reads that once, when it is loaded. With a process per core, threads for every small product
    cost more than they bring.
    """
    with _ENVIRONMENT:
        is_chosen = _THREADS in os.environ
        os.environ.setdefault(_THREADS, str(count))
        try:
            yield
        finally:
            if not is_chosen:
                os.environ.pop(_THREADS, None)
