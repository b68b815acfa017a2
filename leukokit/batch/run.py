"""Running a batch: images are handed out to pipelines, here or in other processes, and results are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Lock
from typing import Final

from leukokit.batch.look import Answer, Finished, finished, look
from leukokit.batch.manifest import Manifest, Stamp
from leukokit.batch.process import LookingProcess, end, hear_out
from leukokit.errors import LeukokitError
from leukokit.images.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.writers.base import Writer, close_all

WORTH_A_PROCESS: Final = 50
"""Images that make up for the start of another process."""
MOST_PROCESSES: Final = 16
"""Most processes of GPUs, where nobody says how many."""
GPU_MEMORY: Final = 2 << 30
"""Bytes of a GPU's memory that a process may want."""
MEMORY: Final = 3 << 30
"""Bytes of the machine's memory that such a process may want."""
MOST_LOOKERS: Final = 8
"""Most images that a CPU works on at once."""


def share_cores(images: int) -> int:
    """How many images a CPU is to work on at once; torch is given that part of its threads for each.

    Networks of this size get further with an image a thread than with one image in all threads.
    """
    import torch

    threads = torch.get_num_threads()
    lookers = max(1, min(threads, images, MOST_LOOKERS))
    torch.set_num_threads(threads // lookers)
    return lookers


def how_many_processes(asked: int | None, devices: Sequence[str], images: int) -> int:
    """How many processes are to look at the images; 0 where pipelines of this one do.

    Args:
        asked: what the user wants; None for one a core on GPUs, as far as their memory holds them.
        devices: where the networks run.
        images: how many there are to look at.
    """
    if not images:
        return 0
    if asked is None:
        # As many on every device as the one of the least memory holds.
        held = len(devices) * min(_free_memory(device) // GPU_MEMORY for device in devices)
        asked = min(MOST_PROCESSES, cores(), images // WORTH_A_PROCESS, held, _memory() // MEMORY)
    # Every device has one at least.
    return 0 if asked < 2 else max(asked, len(devices))


def _free_memory(device: str) -> int:
    """Bytes of a GPU's memory that nobody uses; 0 for a CPU."""
    if not device.startswith("cuda"):
        return 0
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _memory() -> int:
    """Bytes of the machine's memory, where the system tells; else enough for a few processes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 * MEMORY


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Waiting:
    """The images that wait for their turn, handed out to whoever asks next."""

    def __init__(self, images: Sequence[FoundImage]) -> None:
        self._images, self._lock, self._stopped = iter(images), Lock(), False

    def next(self, wait: bool) -> FoundImage | None:
        """The next image; None where there is none, or where all is to stop."""
        with self._lock:
            return None if self._stopped else next(self._images, None)

    def stop(self) -> None:
        """Hand out no more."""
        with self._lock:
            self._stopped = True


@dataclass(slots=True)
class Batch:
    """One run over images.

    Attributes:
        lookers: pipelines of this process, or processes with one each; alike but for the device.
        manifest: where results are kept.
        writers: what else a pipeline of this process saves of each image; those that write a file an image.
        workers: threads that read, shared by the pipelines of this process, which have one each at least.
        note: told of every image that is through, and why it failed, if it did.
    """

    lookers: Sequence[Pipeline | LookingProcess]
    manifest: Manifest
    writers: Sequence[Writer] = ()
    workers: int = 2
    note: Callable[[FoundImage, str], None] = lambda image, error: None

    def run(self, images: Sequence[FoundImage]) -> None:
        """Do the images that are not done; results are kept as they come.

        Raises:
            OutputError: results cannot be kept (a full disk, ...): nothing more is tried.
        """
        waiting = _Waiting([image for image in images if not self.manifest.is_done(image)])
        with (
            ThreadPoolExecutor(1, "write") as writer,
            ThreadPoolExecutor(len(self.lookers), "look") as threads,
        ):
            try:
                if len(self.lookers) == 1:
                    self._work(self.lookers[0], waiting, writer)
                    return
                work = [threads.submit(self._work, each, waiting, writer) for each in self.lookers]
                for ended in as_completed(work):
                    ended.result()
            except BaseException:
                waiting.stop()
                for looker in self.lookers:
                    if isinstance(looker, Pipeline):
                        looker.stop()
                end([looker for looker in self.lookers if isinstance(looker, LookingProcess)])
                raise

    def close(self) -> list[LeukokitError]:
        """Have the writers finish, here and in processes; returns what went wrong.

        Called once, also after a failure.
        """
        return [
            *close_all(self.writers),
            *hear_out([looker for looker in self.lookers if isinstance(looker, LookingProcess)]),
        ]

    def _work(self, looker: Pipeline | LookingProcess, waiting: _Waiting, writer: ThreadPoolExecutor) -> None:
        if isinstance(looker, Pipeline):
            workers = max(1, self.workers // len(self.lookers))
            look(looker, waiting, workers, lambda *found: writer.submit(self._keep, *found))
            return
        behind: list[Future[None]] = []
        for one in looker.finished(waiting):
            behind.append(writer.submit(self._record, one))
            if len(behind) > 2:
                behind.pop(0).result()
        for kept in behind:
            kept.result()

    def _keep(self, image: FoundImage, stamp: Stamp, result: Answer) -> None:
        self._record(finished(image, stamp, result, self.writers))

    def _record(self, one: Finished) -> None:
        if one.packed is None:
            self.manifest.record_failure(one.image, one.error)
        else:
            self.manifest.record(one.image, one.stamp, one.packed, one.thumbnails)
        self.note(one.image, one.error)
