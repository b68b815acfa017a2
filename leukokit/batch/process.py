"""Processes that look at images for a batch, and what they and it tell each other.

A GPU waits for Python most of the time: one process prepares fields for it at a fraction of the pace that it
could take. Each process has a pipeline of its own, reads images, looks at them and writes their files; what
the manifest keeps of them goes back to the batch, which alone writes to it.

A process that dies, whatever killed it (native code of a plugin, the system out of memory), costs the image
that it died on, and no other.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Final

from leukokit import errors
from leukokit._text import printable
from leukokit.batch.look import Answer, Finished, Supply, finished, look, together_on
from leukokit.batch.manifest import Stamp
from leukokit.config import PipelineConfig
from leukokit.errors import LeukokitError, PluginError, cause_of
from leukokit.images.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.registry import load_file, writers
from leukokit.writers.base import close_all

PATIENCE: Final = 10.0
"""Seconds that processes are given to end by themselves."""
_THREADS: Final = "OMP_NUM_THREADS"
_ENVIRONMENT: Final = Lock()
"""Held while the environment is changed for a process that is started."""
_log = logging.getLogger("leukokit")


@dataclass(frozen=True, slots=True)
class Work:
    """What a process is to do with images.

    Attributes:
        config: the pipeline's.
        device: where its networks run.
        plugin_files: Python files with plugins, run first.
        writers: names of the writers of a file an image.
        out: folder of their files, which is there.
        workers: threads that read.
        threads: threads that torch, OpenCV and numpy may use.
    """

    config: PipelineConfig
    device: str
    plugin_files: tuple[Path, ...]
    writers: tuple[str, ...]
    out: Path
    workers: int
    threads: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a pipeline says of itself."""

    provenance: dict[str, Any]
    classes: list[str]
    review_threshold: float | None


@dataclass(frozen=True, slots=True)
class _Said:
    """A line of the process's log."""

    level: int
    message: str


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why the process does nothing more; as text, because what a plugin raises may not travel."""

    kind: str
    message: str


@contextmanager
def looking_processes(work: Sequence[Work]) -> Iterator[list[LookingProcess]]:
    """Processes, started at once, and ended with what is done with them."""
    processes: list[LookingProcess] = []
    try:
        processes += [LookingProcess(each) for each in work]
        yield processes
    finally:
        end(processes)


def hear_out(processes: Sequence[LookingProcess]) -> list[LeukokitError]:
    """Let processes finish, for which there are no more images; returns what they fail at."""
    for process in processes:
        process.release()
    deadline = time.monotonic() + PATIENCE
    return [error for process in processes for error in process.last_errors(deadline)]


def end(processes: Sequence[LookingProcess]) -> None:
    """End processes now, whatever they do. Threads that wait for their answers wait no longer."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join(time.monotonic() + PATIENCE)


class LookingProcess:
    """A process that looks at images, as the batch sees it; started when made."""

    def __init__(self, work: Work) -> None:
        self.work = work
        # No process is started any more once they are to end.
        self._starting, self._ended = Lock(), False
        self._start()

    def wait(self) -> Told:
        """What its pipeline says of itself; waits until there is one.

        Raises:
            LeukokitError: there will be none, and why.
        """
        while self._told is None:
            try:
                self._receive()
            except EOFError:
                raise PluginError(
                    f"a process that is to look at images {self._death()} at its start; --processes 1"
                ) from None
        return self._told

    def finished(self, supply: Supply) -> Iterator[Finished]:
        """Have all images of a supply done; each as it is through.

        Raises:
            LeukokitError: results cannot be kept, or the process does not even start.
        """
        # What waits in it while the networks look at as many, and a few more.
        ahead = 2 * together_on(self.work.device) + self.work.workers + 1
        sent: dict[FoundImage, None] = {}
        suspects: deque[FoundImage] = deque()
        while not self._ended:
            # An image for a process that is not ready would wait longer than for another.
            self.wait()
            # Those that a dead process had are looked at one by one: the guilty one is then alone.
            while len(sent) < (1 if suspects else ahead):
                image = suspects.popleft() if suspects else supply.next(wait=not sent)
                if image is None:
                    break
                sent[image] = None
                # Where it died, the next answer that is waited for will not come, and says so.
                with suppress(OSError):
                    self._connection.send(image)
            if not sent:
                return
            try:
                answer = self._receive()
            except EOFError:
                if self._ended:
                    return
                how = self._death()
                _log.warning("a process that looks at images %s; another goes on with its images", how)
                if len(sent) == 1:
                    (image,) = sent
                    yield Finished(image, error=f"{printable(image.path)}: its worker process {how}")
                else:
                    suspects.extendleft(reversed(sent))
                sent.clear()
                self._start()
                continue
            if answer is not None:
                del sent[answer.image]
                yield answer

    def release(self) -> None:
        """Let it end: there are no more images."""
        with suppress(OSError):
            self._connection.send(None)

    def last_errors(self, deadline: float) -> Iterator[LeukokitError]:
        """What it fails at until it has ended, ``deadline`` (time.monotonic) at most."""
        if self._ended:
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
        yield PluginError(f"a process whose writers were to finish {how}: their files may not be complete")

    def join(self, deadline: float) -> None:
        """Wait until it has ended, until ``deadline`` (time.monotonic) at most."""
        self._process.join(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        """Have it ended now, and not started again."""
        with self._starting:
            self._ended = True
            self._process.kill()

    def _start(self) -> None:
        context = get_context("spawn")
        with self._starting:
            if self._ended:
                return
            self._told: Told | None = None
            self._connection, other = context.Pipe()
            self._process = context.Process(target=_work, args=(other, self.work))
            with _without_interrupts(), _threads(self.work.threads):
                self._process.start()
            # The process's end is its own: when it dies, this one is told.
            other.close()

    def _death(self) -> str:
        """How the process died."""
        self._process.join()
        code = self._process.exitcode or 0
        if code >= 0:
            return f"ended (exit code {code})"
        with suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
        return f"was killed (signal {-code})"

    def _receive(self) -> Finished | None:
        """What comes next: an image that is through, or something of the process's own.

        Raises:
            EOFError: it died.  LeukokitError: it does nothing more.
        """
        try:
            message = self._connection.recv()
        except OSError as error:
            raise EOFError from error
        if isinstance(message, Told):
            self._told = message
        elif isinstance(message, _Said):
            _log.log(message.level, "%s", message.message)
        elif isinstance(message, _Failed):
            raise getattr(errors, message.kind)(message.message)
        else:
            answer: Finished = message
            return answer
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
    """numpy in what is started within takes that many threads and not one a core, unless the user has said.

    Its OpenBLAS reads that once, when it is loaded. With a process a core, threads for every small product
    cost more than they bring.
    """
    with _ENVIRONMENT:
        said = _THREADS in os.environ
        os.environ.setdefault(_THREADS, str(count))
        try:
            yield
        finally:
            if not said:
                os.environ.pop(_THREADS, None)


class _Port(logging.Handler):
    """The process's side: images in, what became of them and lines of the log out."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._sending = connection, Lock()
        self._images: SimpleQueue[FoundImage | None] = SimpleQueue()
        # Taken from the pipe at once: the batch, which sends them, must not wait while this process does.
        Thread(target=self._take, name="images", daemon=True).start()

    def _take(self) -> None:
        try:
            while (image := self._connection.recv()) is not None:
                self._images.put(image)
        except (EOFError, OSError):
            # The batch is gone. Whatever still runs here is of no use.
            os._exit(1)
        self._images.put(None)

    def next(self, wait: bool) -> FoundImage | None:
        """The next image; see ``Supply``."""
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

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the batch what is to be logged."""
        self.send(_Said(record.levelno, record.getMessage()))


def _work(connection: Connection, work: Work) -> None:
    """What the process does, until there are no more images."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored, which a tool that a plugin starts would inherit, and then could not be ended.
    signal.signal(signal.SIGTERM, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    port = _Port(connection)
    _log.addHandler(port)
    try:
        failures = _look(port, work)
    except LeukokitError as error:
        failures = [error]
    except Exception as error:
        why = f"a process that looks at images failed ({cause_of(error)}); --processes 1"
        failures = [LeukokitError(why)]
    for failure in failures:
        kind = next(base for base in type(failure).__mro__ if hasattr(errors, base.__name__))
        port.send(_Failed(kind.__name__, str(failure)))
    # At once: a plugin's thread that hangs does not end with the interpreter.
    os._exit(0)


def _look(port: _Port, work: Work) -> list[LeukokitError]:
    """Look at images until there are no more; returns what the writers fail at when they finish."""
    import cv2
    import torch

    torch.set_num_threads(work.threads)
    cv2.setNumThreads(work.threads)
    for path in work.plugin_files:
        load_file(path)
    pipeline = Pipeline.from_config(work.config, work.device)
    own = [writers.get(name)(work.out) for name in work.writers]

    def keep(image: FoundImage, stamp: Stamp, result: Answer) -> None:
        port.send(finished(image, stamp, result, own))

    try:
        with ThreadPoolExecutor(1, "write") as keeper:
            port.send(told_of(pipeline))
            look(pipeline, port, work.workers, lambda *found: keeper.submit(keep, *found))
    finally:
        failures = close_all(own)
    return failures


def told_of(pipeline: Pipeline) -> Told:
    """What a pipeline says of itself."""
    classifier = pipeline.classifier
    if classifier is None:
        return Told(pipeline.provenance, [], None)
    return Told(pipeline.provenance, list(classifier.classes), classifier.review_threshold)
