"""How many images a machine works on at once, and in how many processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from leukokit.engines.cpu import cores

IMAGES_PER_PROCESS: Final = 50
"""Images that make up for the start of another process."""
MAX_PROCESSES: Final = 16
"""Most processes that are started where the user does not say how many."""
GPU_MEMORY: Final = 2 << 30
"""Bytes of a GPU's memory that a process may need."""
MEMORY: Final = 3 << 30
"""Bytes of the machine's memory that such a process may need."""
MAX_PIPELINES: Final = 8
"""Most images that a CPU works on at once."""


def share_cores(images: int) -> tuple[int, int]:
    """Return how many images a CPU works on at once, and the threads that a network may use for each.

    Networks of this size get further with an image per thread than with one image in all threads.
    """
    pipelines = max(1, min(cores(), images, MAX_PIPELINES))
    return pipelines, max(1, cores() // pipelines)


@contextmanager
def opencv_threads(count: int) -> Iterator[None]:
    """Let OpenCV use so many threads per call within: each pipeline has its own core already."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def process_count(asked: int | None, devices: Sequence[str], images: int, isolate: bool = False) -> int:
    """Return how many worker processes do the images; 0 where pipelines of this process do.

    Args:
        asked: what the user wants; None for one per core on GPUs, as far as their memory holds them.
        devices: where the networks run.
        images: how many there are to do.
        isolate: whether plugins take part that may hang or end their process.
    """
    if not images or asked == 0:
        return 0
    if asked is None:
        fit = min(MAX_PROCESSES, cores(), images // IMAGES_PER_PROCESS, machine_memory() // MEMORY)
        if isolate and devices == ["cpu"]:
            asked = max(1, min(fit, MAX_PIPELINES))
        else:
            # As many on every device as the one of the least memory holds.
            fit = min(fit, len(devices) * min(_free_memory(device) // GPU_MEMORY for device in devices))
            asked = max(fit, 1) if isolate else fit if fit > 1 else 0
    # Every device has one at least.
    return max(asked, len(devices)) if asked else 0


def _free_memory(device: str) -> int:
    """Bytes of a GPU's memory that nobody uses; 0 for a CPU."""
    if not device.startswith("cuda"):
        return 0
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def machine_memory() -> int:
    """Return the bytes of the machine's memory, where the system tells; else enough for a few processes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 * MEMORY
