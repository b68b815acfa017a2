"""What one pipeline does with the images of a batch, in this process or in a worker process.

A few threads read images ahead and another saves results behind, while the networks work on those between;
what waits in between is bounded, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from leukokit._guard import TimeLimit
from leukokit._text import printable
from leukokit.batch.memory import MemoryBudget
from leukokit.batch.records import Record, SavedFile, Stamp, Thumbnail, pack, stamp_of
from leukokit.crops.cut import cut_crops
from leukokit.errors import FileNameError, LeukokitError, PluginError
from leukokit.images.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE
from leukokit.writers.base import Writer, write_with
from leukokit.writers.labels import cell_labels
from leukokit.writers.tables import cell_row, column_classes, lines

GPU_BATCH: Final = 8
"""Images that a GPU gets at once; on a CPU more than one only costs memory."""
GALLERY: Final = 24
"""Most leukocytes of one label in the report's gallery, and so of one image in the manifest."""
THUMBNAIL_PX: Final = 72
THUMBNAIL_REACH: Final = 1.6
"""Side of a thumbnail in longer sides of the cell's box."""

_DROPPED: Final = frozenset({"cells", "graph", "standardization", "provenance"})
"""What no table shows of an image's document; the provenance is the same for every image, and in run.json."""

FieldOutcome = SmearResult | LeukokitError
Keep = Callable[[FoundImage, Stamp, FieldOutcome], "Future[None]"]
_Read = tuple[Stamp, Smear, float]


class ImageSource(Protocol):
    """Where the images come from."""

    def next(self, wait: bool) -> FoundImage | None:
        """Return the next image; None where there is none, or none yet and ``wait`` is False."""


class RecordMaker:
    """Writes an image's files, and gathers what the manifest keeps of it.

    Args:
        writers: those that finish a file per image.
        out: the folder that they write to.
        time_limit: seconds that a writer may take per image; 0 for no limit.
    """

    def __init__(self, writers: Sequence[Writer], out: Path, time_limit: float) -> None:
        self.writers, self._out, self._limit = writers, out, TimeLimit(time_limit)

    def make(self, image: FoundImage, stamp: Stamp, outcome: FieldOutcome) -> Record:
        """Return the record of an image that is through.

        Args:
            image: the image.
            stamp: its file's, before it was read.
            outcome: what became of it.

        Raises:
            OutputError: files cannot be written, whatever their names.
        """
        if isinstance(outcome, LeukokitError):
            return Record(image, error=str(outcome))
        try:
            files = [file for writer in self.writers for file in self._write(writer, outcome)]
        except (PluginError, FileNameError) as error:
            return Record(image, error=str(error))
        document, labelling = outcome.to_json(), outcome.cells.labelling
        name, classes = image.relative.as_posix(), column_classes(labelling.classes if labelling else ())
        # Made into text here, by many at once, and not in the end for all images by one.
        cells = lines(cell_row(name, cell, classes) for cell in document["cells"])
        kept = {key: value for key, value in document.items() if key not in _DROPPED}
        return Record(image, stamp, "", pack(kept, cells), _thumbnails(image, outcome), files)

    def stop(self) -> None:
        """From another thread: end what a writer does."""
        self._limit.stop()

    def _write(self, writer: Writer, result: SmearResult) -> list[SavedFile]:
        before = len(writer.files)
        try:
            self._limit.run(partial(write_with, writer, result))
        except TimeoutError as error:
            image = printable(result.smear.path or result.output_stem)
            raise PluginError(f"{image}: writer '{writer.name}' {error}") from error
        written = writer.files[before:]
        # Of a batch there may be a million; the manifest keeps them.
        del writer.files[before:]
        return [self._saved(path) for path in written]

    def _saved(self, path: Path) -> SavedFile:
        return SavedFile(os.path.relpath(path, self._out), path.stat().st_size)


def process_images(
    pipeline: Pipeline, source: ImageSource, workers: int, budget: MemoryBudget, keep: Keep
) -> None:
    """Do all images of a source.

    Args:
        pipeline: what is done to them.
        source: the images.
        workers: threads that read.
        budget: what the images that are read and not yet recorded may take.
        keep: takes an image, its stamp and its outcome, to be saved by another thread.

    Raises:
        OutputError: results cannot be saved (a full disk, ...): nothing more is tried.
    """
    together = images_at_once(pipeline.device)
    pending: deque[Future[None]] = deque()
    readers = ThreadPoolExecutor(workers, "read")
    ahead = _Ahead(pipeline, source, readers, budget, together + workers)
    try:
        for image, stamp, outcome in _outcomes(pipeline, together, ahead):
            pending.append(keep(image, stamp, outcome))
            pending[-1].add_done_callback(partial(_give_back, budget, ahead.taken.pop(image)))
            del outcome
            while len(pending) > 2 * together or (pending and pending[0].done()):
                pending.popleft().result()
        for kept in pending:
            kept.result()
    except BaseException:
        for future in pending:
            future.cancel()
        raise
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def images_at_once(device: str) -> int:
    """Return how many images a device gets at once."""
    return GPU_BATCH if device.startswith("cuda") else 1


def _give_back(budget: MemoryBudget, amount: int, _: Future[None]) -> None:
    budget.give_back(amount)


class _Ahead:
    """The images that are read ahead, in their order, as far as their memory allows.

    Attributes:
        taken: memory taken for each image that is not yet handed to be recorded, bytes.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source: ImageSource,
        readers: ThreadPoolExecutor,
        budget: MemoryBudget,
        most: int,
    ) -> None:
        self.taken: dict[FoundImage, int] = {}
        self._pipeline, self._source, self._readers = pipeline, source, readers
        self._budget, self._most = budget, most
        self._next: tuple[FoundImage, Future[int]] | None = None
        self._reading: deque[tuple[FoundImage, Future[_Read | LeukokitError]]] = deque()

    def next_group(self, together: int) -> list[tuple[FoundImage, _Read | LeukokitError]]:
        """Return the next images, read; none at the end."""
        while len(self._reading) < self._most and self._admit_next():
            pass
        group = [self._reading.popleft() for _ in range(min(together, len(self._reading)))]
        return [(image, read.result()) for image, read in group]

    def _admit_next(self) -> bool:
        """Start to read an image; whether there was one, and memory for it."""
        is_idle = not self._reading
        if self._next is None:
            if (image := self._source.next(wait=is_idle)) is None:
                return False
            self._next = image, self._readers.submit(_memory_of, self._pipeline, image)
        image, memory = self._next
        # What is read already is processed meanwhile, and makes room.
        if not (is_idle or memory.done()) or not self._budget.take(memory.result(), wait=is_idle):
            return False
        self._next, self.taken[image] = None, memory.result()
        self._reading.append((image, self._readers.submit(_read_image, self._pipeline, image)))
        return True


def _outcomes(
    pipeline: Pipeline, together: int, ahead: _Ahead
) -> Iterator[tuple[FoundImage, Stamp, FieldOutcome]]:
    while group := ahead.next_group(together):
        yield from _process_image(pipeline, group)


def _memory_of(pipeline: Pipeline, image: FoundImage) -> int:
    try:
        return pipeline.memory_of(image.path)
    except LeukokitError:
        # Reading it says what is wrong.
        return 0


def _read_image(pipeline: Pipeline, image: FoundImage) -> _Read | LeukokitError:
    started, stamp = time.perf_counter(), stamp_of(image.path)
    try:
        return stamp, pipeline.read(image.path), time.perf_counter() - started
    except LeukokitError as error:
        return error


def _process_image(
    pipeline: Pipeline, read: list[tuple[FoundImage, _Read | LeukokitError]]
) -> Iterator[tuple[FoundImage, Stamp, FieldOutcome]]:
    yield from ((image, None, found) for image, found in read if isinstance(found, LeukokitError))
    smears = [(image, *found) for image, found in read if not isinstance(found, LeukokitError)]
    started = time.perf_counter()
    graphs = pipeline.process([smear for _, _, smear, _ in smears])
    share = (time.perf_counter() - started) / max(len(smears), 1)
    for (image, stamp, smear, reading), graph in zip(smears, graphs, strict=True):
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
