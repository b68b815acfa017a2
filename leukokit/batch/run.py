"""Running a batch: images are read ahead and results written behind, while the networks look at others.

Reading is done by a few threads, writing by one, everything between by the caller's own, or by one a device;
what waits between them is bounded, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

import numpy as np

from leukokit.batch.manifest import Manifest, Thumbnail
from leukokit.crops import cut_crops
from leukokit.errors import ImageError, LeukokitError, OutputError, PluginError
from leukokit.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.results import SmearResult
from leukokit.smear import Smear, shown
from leukokit.taxonomy import LEUKOCYTE
from leukokit.writers.base import Writer
from leukokit.writers.labels import cell_labels

GALLERY: Final = 24
"""Most leukocytes of one class in the report's gallery."""
THUMBNAIL_PX: Final = 72
THUMBNAIL_REACH: Final = 1.6
"""Side of a thumbnail in longer sides of the cell's box."""
PRUNE_EVERY: Final = 500
"""Images between two looks at which thumbnails no gallery will show."""
TOGETHER: Final = 8
"""Images shown to a GPU at once; on a CPU more than one only costs memory."""
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


class _Waiting:
    """The images that wait for their turn, handed out to whoever asks next."""

    def __init__(self, images: Sequence[FoundImage]) -> None:
        self._images, self._lock, self._stopped = iter(images), Lock(), False

    def next(self) -> FoundImage | None:
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
        pipelines: what is done to each image; each works on its own, alike but for the device.
        manifest: where it is kept.
        writers: what else is saved of each; those that write a file an image.
        workers: threads that read.
        note: told of every image that is through, and why it failed, if it did.
    """

    pipelines: Sequence[Pipeline]
    manifest: Manifest
    writers: Sequence[Writer] = ()
    workers: int = 2
    note: Callable[[FoundImage, str], None] = lambda image, error: None
    _full: dict[str, float] = field(default_factory=dict)
    _recorded: int = 0

    def run(self, images: Sequence[FoundImage]) -> None:
        """Do the images that are not done; results are kept as they come.

        Raises:
            OutputError: results cannot be kept (a full disk, ...): nothing more is tried.
        """
        self._full = self.manifest.prune_thumbnails(GALLERY)
        waiting = _Waiting([image for image in images if not self.manifest.is_done(image)])
        with (
            ThreadPoolExecutor(self.workers, "read") as readers,
            ThreadPoolExecutor(1, "write") as writer,
            ThreadPoolExecutor(len(self.pipelines), "look") as lookers,
        ):
            try:
                if len(self.pipelines) == 1:
                    self._work(self.pipelines[0], waiting, readers, writer)
                    return
                work = [lookers.submit(self._work, each, waiting, readers, writer) for each in self.pipelines]
                for ended in as_completed(work):
                    ended.result()
            except BaseException:
                waiting.stop()
                readers.shutdown(wait=False, cancel_futures=True)
                raise

    def _work(
        self, pipeline: Pipeline, waiting: _Waiting, readers: ThreadPoolExecutor, writer: ThreadPoolExecutor
    ) -> None:
        together = TOGETHER if pipeline.device.startswith("cuda") else 1
        behind: deque[Future[None]] = deque()
        try:
            for image, result in self._results(pipeline, together, waiting, readers):
                behind.append(writer.submit(self._keep, image, result))
                del result
                while len(behind) > 2 * together:
                    behind.popleft().result()
            for kept in behind:
                kept.result()
        except BaseException:
            for future in behind:
                future.cancel()
            raise

    def _results(
        self, pipeline: Pipeline, together: int, waiting: _Waiting, readers: ThreadPoolExecutor
    ) -> Iterator[tuple[FoundImage, SmearResult | LeukokitError]]:
        ahead: deque[tuple[FoundImage, Future[tuple[Smear, float] | LeukokitError]]] = deque()
        most = together + max(1, self.workers // len(self.pipelines))
        while True:
            while len(ahead) < most and (image := waiting.next()) is not None:
                ahead.append((image, readers.submit(_read, pipeline, image)))
            if not ahead:
                return
            read = [ahead.popleft() for _ in range(min(together, len(ahead)))]
            yield from _answers(pipeline, [(image, future.result()) for image, future in read])

    def _keep(self, image: FoundImage, result: SmearResult | LeukokitError) -> None:
        if isinstance(result, LeukokitError):
            self.manifest.record_failure(image, str(result))
            self.note(image, str(result))
            return
        try:
            for writer in self.writers:
                writer.write(result)
        except OutputError:
            raise
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            said = f"{shown(image.path)}: writer '{writer.name}' failed ({cause})"
            self.manifest.record_failure(image, said)
            self.note(image, said)
            return
        document = result.to_json()
        # The same for every image, and in run.json.
        del document["provenance"]
        self.manifest.record(image, document, self._thumbnails(image, result))
        self._recorded += 1
        if self._recorded % PRUNE_EVERY == 0:
            self._full = self.manifest.prune_thumbnails(GALLERY)
        self.note(image, "")

    def _thumbnails(self, image: FoundImage, result: SmearResult) -> list[Thumbnail]:
        """Crops of the leukocytes that may be among the least certain of their label."""
        from PIL import Image

        cells, labels = result.cells, cell_labels(result.cells)
        chosen = [
            number
            for number in np.flatnonzero(cells.kinds == LEUKOCYTE).tolist()
            if (label := labels[number]) is not None
            and label.probability <= self._full.get(label.name, np.inf)
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
            thumbnails.append(
                Thumbnail(image.relative, number, label.name, label.probability, stream.getvalue())
            )
        return thumbnails


def _read(pipeline: Pipeline, image: FoundImage) -> tuple[Smear, float] | LeukokitError:
    started = time.perf_counter()
    try:
        return pipeline.read(image.path), time.perf_counter() - started
    except LeukokitError as error:
        return error


def _answers(
    pipeline: Pipeline, read: list[tuple[FoundImage, tuple[Smear, float] | LeukokitError]]
) -> Iterator[tuple[FoundImage, SmearResult | LeukokitError]]:
    yield from ((image, found) for image, found in read if isinstance(found, LeukokitError))
    smears = [(image, *found) for image, found in read if not isinstance(found, LeukokitError)]
    started = time.perf_counter()
    detected = pipeline.detect_all([smear for _, smear, _ in smears])
    share = (time.perf_counter() - started) / max(len(smears), 1)
    for (image, smear, reading), cells in zip(smears, detected, strict=True):
        if isinstance(cells, LeukokitError):
            yield image, cells
            continue
        begun = time.perf_counter() - reading - share
        try:
            yield image, pipeline.answer(smear, cells, image.stem_path, begun)
        except (ImageError, PluginError) as error:
            yield image, error
