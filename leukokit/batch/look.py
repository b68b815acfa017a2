"""What one pipeline does with the images of a batch, wherever it works: here or in a process of its own.

Images are read ahead by a few threads and results kept behind by another, while the networks look at others;
what waits between them is bounded, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from leukokit.batch.manifest import Thumbnail, pack
from leukokit.crops import cut_crops
from leukokit.errors import LeukokitError, PluginError
from leukokit.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE
from leukokit.writers.base import Writer, write_with
from leukokit.writers.labels import cell_labels

TOGETHER: Final = 8
"""Images shown to a GPU at once; on a CPU more than one only costs memory."""
THUMBNAIL_PX: Final = 72
THUMBNAIL_REACH: Final = 1.6
"""Side of a thumbnail in longer sides of the cell's box."""

Answer = SmearResult | LeukokitError
Keep = Callable[[FoundImage, Answer], "Future[None]"]


class Supply(Protocol):
    """Where the images come from."""

    def next(self, wait: bool) -> FoundImage | None:
        """The next image; None where there is none, or none yet and the caller does not want to wait."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An image that is through: what is to be kept of it, packed, or why there is nothing."""

    image: FoundImage
    error: str = ""
    packed: bytes | None = None
    thumbnails: Sequence[Thumbnail] = ()


def look(pipeline: Pipeline, supply: Supply, workers: int, keep: Keep) -> None:
    """Do all images of a supply.

    Args:
        pipeline: what is done to them.
        supply: the images.
        workers: threads that read.
        keep: takes an image and its result, to be kept by some other thread.

    Raises:
        OutputError: results cannot be kept (a full disk, ...): nothing more is tried.
    """
    together = together_on(pipeline.device)
    behind: deque[Future[None]] = deque()
    readers = ThreadPoolExecutor(workers, "read")
    try:
        for image, result in _results(pipeline, together, workers, supply, readers):
            behind.append(keep(image, result))
            del result
            while len(behind) > 2 * together:
                behind.popleft().result()
        for kept in behind:
            kept.result()
    except BaseException:
        for future in behind:
            future.cancel()
        raise
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def together_on(device: str) -> int:
    """Images that a device looks at together."""
    return TOGETHER if device.startswith("cuda") else 1


def finished(
    image: FoundImage, result: Answer, writers: Sequence[Writer], full: Mapping[str, float]
) -> Finished:
    """Write an image's own files, and gather what the manifest keeps of it.

    Args:
        image: the image.
        result: what became of it.
        writers: those that write a file an image.
        full: the probability from which a gallery that is full has no place for a leukocyte of a label.

    Raises:
        OutputError: a file cannot be written.
    """
    if isinstance(result, LeukokitError):
        return Finished(image, str(result))
    try:
        for writer in writers:
            write_with(writer, result)
    except PluginError as error:
        return Finished(image, str(error))
    document = result.to_json()
    # The same for every image, and in run.json.
    del document["provenance"]
    return Finished(image, "", pack(document), _thumbnails(image, result, full))


def _results(
    pipeline: Pipeline, together: int, workers: int, supply: Supply, readers: ThreadPoolExecutor
) -> Iterator[tuple[FoundImage, Answer]]:
    ahead: deque[tuple[FoundImage, Future[tuple[Smear, float] | LeukokitError]]] = deque()
    while True:
        while len(ahead) < together + workers and (image := supply.next(wait=not ahead)) is not None:
            ahead.append((image, readers.submit(_read, pipeline, image)))
        if not ahead:
            return
        read = [ahead.popleft() for _ in range(min(together, len(ahead)))]
        yield from _answers(pipeline, [(image, future.result()) for image, future in read])


def _read(pipeline: Pipeline, image: FoundImage) -> tuple[Smear, float] | LeukokitError:
    started = time.perf_counter()
    try:
        return pipeline.read(image.path), time.perf_counter() - started
    except LeukokitError as error:
        return error


def _answers(
    pipeline: Pipeline, read: list[tuple[FoundImage, tuple[Smear, float] | LeukokitError]]
) -> Iterator[tuple[FoundImage, Answer]]:
    yield from ((image, found) for image, found in read if isinstance(found, LeukokitError))
    smears = [(image, *found) for image, found in read if not isinstance(found, LeukokitError)]
    started = time.perf_counter()
    seen = pipeline.look([smear for _, smear, _ in smears])
    share = (time.perf_counter() - started) / max(len(smears), 1)
    for (image, smear, reading), graph in zip(smears, seen, strict=True):
        if isinstance(graph, LeukokitError):
            yield image, graph
        else:
            yield image, pipeline.result(smear, graph, image.stem_path, reading + share)


def _thumbnails(image: FoundImage, result: SmearResult, full: Mapping[str, float]) -> list[Thumbnail]:
    """Crops of the leukocytes that may be among the least certain of their label."""
    from PIL import Image

    cells, labels = result.cells, cell_labels(result.cells)
    chosen = [
        number
        for number in np.flatnonzero(cells.kinds == LEUKOCYTE).tolist()
        if (label := labels[number]) is not None and label.probability <= full.get(label.name, np.inf)
    ]
    if not chosen:
        return []
    boxes = cells.boxes[chosen]
    sides = THUMBNAIL_REACH * np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
    plain = Smear(result.smear.image, result.smear.path, result.smear.sha256)
    thumbnails = []
    for number, crop in zip(chosen, cut_crops(plain, boxes, sides, THUMBNAIL_PX), strict=True):
        label, stream = labels[number], io.BytesIO()
        assert label is not None
        Image.fromarray(crop).save(stream, "JPEG", quality=80)
        thumbnails.append(Thumbnail(image.relative, number, label.name, label.probability, stream.getvalue()))
    return thumbnails
