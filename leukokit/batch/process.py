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
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from leukokit.config import PipelineConfig
from leukokit.errors import LeukokitError, PluginError
from leukokit.inputs import FoundImage
from leukokit.smear import shown

if TYPE_CHECKING:
    from leukokit.batch.look import Answer, Finished, Supply

AHEAD: Final = 32
"""Images that a process is given before their results are back."""
PATIENCE: Final = 10.0
"""Seconds that a process is given to end by itself."""
_log = logging.getLogger("leukokit")


@dataclass(frozen=True, slots=True)
class Work:
    """What a process is to do with images.

    Attributes:
        config: the pipeline's.
        device: where its networks run.
        plugin_files: Python files with plugins, run first.
        writers: names of the writers of a file an image.
        out: folder of their files.
        workers: threads that read.
        threads: threads that torch may use.
    """

    config: PipelineConfig
    device: str
    plugin_files: tuple[Path, ...]
    writers: tuple[str, ...]
    out: Path
    workers: int
    threads: int


@dataclass(frozen=True, slots=True)
class _Ready:
    """The process has its pipeline."""


@dataclass(frozen=True, slots=True)
class _Said:
    """A line of the process's log."""

    level: int
    message: str


@contextmanager
def looking_processes(work: Sequence[Work]) -> Iterator[list[LookingProcess]]:
    """Processes, started at once; ended when they are through, and at once where something went wrong."""
    processes = [LookingProcess(each) for each in work]
    try:
        yield processes
        for process in processes:
            process.release()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.end()


class LookingProcess:
    """A process that looks at images, as the batch sees it; started when made."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._ended = False
        self._start()

    @property
    def device(self) -> str:
        """Where its networks run."""
        return self.work.device

    def finished(self, supply: Supply, full: Callable[[], Mapping[str, float]]) -> Iterator[Finished]:
        """Have all images of a supply done; each as it is through.

        Args:
            supply: the images.
            full: labels whose gallery is full, see ``look.finished``.

        Raises:
            LeukokitError: results cannot be kept, or the process does not even start.
        """
        from leukokit.batch.look import Finished

        sent: dict[FoundImage, None] = {}
        suspects: deque[FoundImage] = deque()
        while True:
            # Those that a dead process had are looked at one by one: the guilty one is then alone.
            while len(sent) < (1 if suspects else AHEAD):
                image = suspects.popleft() if suspects else supply.next(wait=not sent)
                if image is None:
                    break
                sent[image] = None
                self._send((image, dict(full())))
            if not sent:
                return
            try:
                answer = self._receive()
            except EOFError:
                if self._ended:
                    return
                how = self._restart()
                if len(sent) == 1:
                    (image,) = sent
                    yield Finished(image, f"{shown(image.path)}: the process that looked at it {how}")
                else:
                    suspects.extendleft(reversed(sent))
                sent.clear()
                continue
            if isinstance(answer, LeukokitError):
                raise answer
            del sent[answer.image]
            yield answer

    def release(self) -> None:
        """Let the process end: there are no more images."""
        self._connection.close()

    def join(self) -> None:
        """Wait until it has ended; not long."""
        self._process.join(PATIENCE)

    def end(self) -> None:
        """End it now, whatever it does. Another thread that waits for its answers waits no longer."""
        self._ended = True
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, self.work), daemon=True)
        self._process.start()
        # The process's end is its own: when it dies, this one is told.
        other.close()
        self._ready = False

    def _restart(self) -> str:
        """A new process in place of one that died; says how that did."""
        self._process.join()
        code = self._process.exitcode or 0
        how = f"ended (exit code {code})"
        if code < 0:
            how = f"was killed ({signal.Signals(-code).name})"
        if not self._ready:
            raise PluginError(f"a process that is to look at images {how} at its start; --processes 1")
        self._connection.close()
        self._start()
        return how

    def _send(self, message: Any) -> None:
        # Where it died, the next answer that is waited for will not come, and says so.
        with suppress(OSError):
            self._connection.send(message)

    def _receive(self) -> Any:
        while True:
            try:
                message = self._connection.recv()
            except OSError as error:
                raise EOFError from error
            if isinstance(message, _Ready):
                self._ready = True
            elif isinstance(message, _Said):
                _log.log(message.level, "%s", message.message)
            else:
                return message


class _Port(logging.Handler):
    """The process's side: images in, what became of them and lines of the log out."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._sending = connection, Lock()
        self.full: Mapping[str, float] = {}

    def next(self, wait: bool) -> FoundImage | None:
        """The next image; see ``Supply``."""
        try:
            if not wait and not self._connection.poll():
                return None
            image, self.full = self._connection.recv()
        except EOFError:
            return None
        found: FoundImage = image
        return found

    def send(self, message: object) -> None:
        """Tell the batch."""
        with self._sending:
            self._connection.send(message)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the batch what is to be logged."""
        self.send(_Said(record.levelno, record.getMessage()))


def _work(connection: Connection, work: Work) -> None:
    """What the process does, from its start to the end of the batch, whose pipe then closes."""
    # Ctrl-C is for the batch, which ends its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    port = _Port(connection)
    _log.addHandler(port)
    try:
        _look(port, work)
    except LeukokitError as error:
        port.send(error)
    except (BrokenPipeError, ConnectionResetError):
        # The batch is gone. Whatever still runs here is of no use.
        os._exit(1)


def _look(port: _Port, work: Work) -> None:
    import cv2
    import torch

    from leukokit.batch.look import finished, look
    from leukokit.pipeline import Pipeline
    from leukokit.registry import load_file, writers

    torch.set_num_threads(work.threads)
    cv2.setNumThreads(work.threads)
    for path in work.plugin_files:
        load_file(path)
    pipeline = Pipeline(work.config, work.device)
    own = [writers.get(name)(work.out) for name in work.writers]
    port.send(_Ready())

    def keep(image: FoundImage, result: Answer) -> None:
        port.send(finished(image, result, own, port.full))

    def later(image: FoundImage, result: Answer) -> Future[None]:
        return keeper.submit(keep, image, result)

    with ThreadPoolExecutor(1, "write") as keeper:
        look(pipeline, port, work.workers, later)
    for writer in own:
        writer.close()
