"""What one pipeline does with the images of a batch, wherever it works: here or in a process of its own.

Images are read ahead by a few threads and results kept behind by another, while the networks look at others;
what waits between them is bounded, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from leukokit.batch.manifest import Stamp, Thumbnail, pack, stamp_of
from leukokit.crops.cut import cut_crops
from leukokit.errors import LeukokitError, PluginError
from leukokit.images.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE
from leukokit.writers.base import Writer, write_with
from leukokit.writers.labels import cell_labels
from leukokit.writers.tables import cell_row, column_classes, lines

TOGETHER: Final = 8
"""Images shown to a GPU at once; on a CPU more than one only costs memory."""
GALLERY: Final = 24
"""Most leukocytes of one label in the report's gallery, and so of one image in the manifest."""
THUMBNAIL_PX: Final = 72
THUMBNAIL_REACH: Final = 1.6
"""Side of a thumbnail in longer sides of the cell's box."""

_NOT_KEPT: Final = frozenset({"cells", "graph", "standardization", "provenance"})
"""What no table shows of an image's document; the provenance is the same for every image, and in run.json."""

Answer = SmearResult | LeukokitError
Keep = Callable[[FoundImage, Stamp, Answer], "Future[None]"]
_Read = tuple[Stamp, Smear, float]


class Supply(Protocol):
    """Where the images come from."""

    def next(self, wait: bool) -> FoundImage | None:
        """The next image; None where there is none, or none yet and the caller does not want to wait."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An image that is through: what is to be kept of it, packed, or why there is nothing.

    ``stamp`` is the file's before it was read: one that is written anew since then has another.
    """

    image: FoundImage
    stamp: Stamp = None
    error: str = ""
    packed: bytes | None = None
    thumbnails: Sequence[Thumbnail] = ()


def look(pipeline: Pipeline, supply: Supply, workers: int, keep: Keep) -> None:
    """Do all images of a supply.

    Args:
        pipeline: what is done to them.
        supply: the images.
        workers: threads that read.
        keep: takes an image, its stamp and its result, to be kept by some other thread.

    Raises:
        OutputError: results cannot be kept (a full disk, ...): nothing more is tried.
    """
    together = together_on(pipeline.device)
    behind: deque[Future[None]] = deque()
    readers = ThreadPoolExecutor(workers, "read")
    try:
        for found in _results(pipeline, together, workers, supply, readers):
            behind.append(keep(*found))
            del found
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


def finished(image: FoundImage, stamp: Stamp, result: Answer, writers: Sequence[Writer]) -> Finished:
    """Write an image's own files, and gather what the manifest keeps of it.

    Args:
        image: the image.
        stamp: its file's, before it was read.
        result: what became of it.
        writers: those that write a file an image.

    Raises:
        OutputError: a file cannot be written.
    """
    if isinstance(result, LeukokitError):
        return Finished(image, error=str(result))
    try:
        for writer in writers:
            write_with(writer, result)
    except PluginError as error:
        return Finished(image, error=str(error))
    document, labelling = result.to_json(), result.cells.labelling
    name, classes = image.relative.as_posix(), column_classes(labelling.classes if labelling else ())
    # Made into text here, by many at once, and not in the end for all images by one.
    cells = lines(cell_row(name, cell, classes) for cell in document["cells"])
    kept = {key: value for key, value in document.items() if key not in _NOT_KEPT}
    return Finished(image, stamp, packed=pack(kept, cells), thumbnails=_thumbnails(image, result))


def _results(
    pipeline: Pipeline, together: int, workers: int, supply: Supply, readers: ThreadPoolExecutor
) -> Iterator[tuple[FoundImage, Stamp, Answer]]:
    ahead: deque[tuple[FoundImage, Future[_Read | LeukokitError]]] = deque()
    while True:
        while len(ahead) < together + workers and (image := supply.next(wait=not ahead)) is not None:
            ahead.append((image, readers.submit(_read, pipeline, image)))
        if not ahead:
            return
        read = [ahead.popleft() for _ in range(min(together, len(ahead)))]
        yield from _answers(pipeline, [(image, future.result()) for image, future in read])


def _read(pipeline: Pipeline, image: FoundImage) -> _Read | LeukokitError:
    started, stamp = time.perf_counter(), stamp_of(image.path)
    try:
        return stamp, pipeline.read(image.path), time.perf_counter() - started
    except LeukokitError as error:
        return error


def _answers(
    pipeline: Pipeline, read: list[tuple[FoundImage, _Read | LeukokitError]]
) -> Iterator[tuple[FoundImage, Stamp, Answer]]:
    yield from ((image, None, found) for image, found in read if isinstance(found, LeukokitError))
    smears = [(image, *found) for image, found in read if not isinstance(found, LeukokitError)]
    started = time.perf_counter()
    seen = pipeline.process([smear for _, _, smear, _ in smears])
    share = (time.perf_counter() - started) / max(len(smears), 1)
    for (image, stamp, smear, reading), graph in zip(smears, seen, strict=True):
        if isinstance(graph, LeukokitError):
            yield image, stamp, graph
        else:
            yield image, stamp, pipeline.make_result(smear, graph, image.stem_path, reading + share)


def _thumbnails(image: FoundImage, result: SmearResult) -> list[Thumbnail]:
    """Crops of the leukocytes that may be in the gallery: the image's least certain of each label."""
    from PIL import Image

    cells, labels = result.cells, cell_labels(result.cells)
    by_label: dict[str, list[tuple[float, int]]] = {}
    for number in np.flatnonzero(cells.kinds == LEUKOCYTE).tolist():
        if (label := labels[number]) is not None:
            by_label.setdefault(label.name, []).append((label.probability, number))
    chosen = sorted(number for found in by_label.values() for _, number in sorted(found)[:GALLERY])
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
