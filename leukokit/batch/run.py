"""Running a batch: images are read ahead and results written behind, while the network looks at others.

Reading is done by a few threads, writing by one, everything between by the caller's own; what waits between
them is bounded, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Batch:
    """One run over images.

    Attributes:
        pipeline: what is done to each.
        manifest: where it is kept.
        writers: what else is saved of each; those that write a file an image.
        workers: threads that read.
        together: images shown to the detector at once.
        note: told of every image that is through, and why it failed, if it did.
    """

    pipeline: Pipeline
    manifest: Manifest
    writers: Sequence[Writer] = ()
    workers: int = 2
    together: int = 1
    note: Callable[[FoundImage, str], None] = lambda image, error: None
    _full: dict[str, float] = field(default_factory=dict)
    _recorded: int = 0

    def run(self, images: Sequence[FoundImage]) -> None:
        """Do the images that are not done; results are kept as they come.

        Raises:
            OutputError: results cannot be kept (a full disk, ...): nothing more is tried.
        """
        self._full = self.manifest.prune_thumbnails(GALLERY)
        todo = [image for image in images if not self.manifest.is_done(image)]
        with (
            ThreadPoolExecutor(self.workers, "read") as readers,
            ThreadPoolExecutor(1, "write") as writer,
        ):
            behind: deque[Future[None]] = deque()
            try:
                for image, result in self._results(todo, readers):
                    behind.append(writer.submit(self._keep, image, result))
                    del result
                    while len(behind) > 2 * self.together:
                        behind.popleft().result()
                for kept in behind:
                    kept.result()
            except BaseException:
                for future in behind:
                    future.cancel()
                readers.shutdown(wait=False, cancel_futures=True)
                raise

    def _results(
        self, images: Sequence[FoundImage], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[FoundImage, SmearResult | LeukokitError]]:
        ahead: deque[tuple[FoundImage, Future[tuple[Smear, float] | LeukokitError]]] = deque()
        waiting = iter(images)
        most = self.workers + self.together
        while True:
            while len(ahead) < most and (image := next(waiting, None)) is not None:
                ahead.append((image, readers.submit(self._read, image)))
            if not ahead:
                return
            read = [ahead.popleft() for _ in range(min(self.together, len(ahead)))]
            yield from self._answers([(image, future.result()) for image, future in read])

    def _read(self, image: FoundImage) -> tuple[Smear, float] | LeukokitError:
        started = time.perf_counter()
        try:
            return self.pipeline.read(image.path), time.perf_counter() - started
        except LeukokitError as error:
            return error

    def _answers(
        self, read: list[tuple[FoundImage, tuple[Smear, float] | LeukokitError]]
    ) -> Iterator[tuple[FoundImage, SmearResult | LeukokitError]]:
        yield from ((image, found) for image, found in read if isinstance(found, LeukokitError))
        smears = [(image, *found) for image, found in read if not isinstance(found, LeukokitError)]
        started = time.perf_counter()
        detected = self.pipeline.detect_all([smear for _, smear, _ in smears])
        share = (time.perf_counter() - started) / max(len(smears), 1)
        for (image, smear, reading), cells in zip(smears, detected, strict=True):
            if isinstance(cells, LeukokitError):
                yield image, cells
                continue
            begun = time.perf_counter() - reading - share
            try:
                yield image, self.pipeline.answer(smear, cells, image.stem_path, begun)
            except (ImageError, PluginError) as error:
                yield image, error

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
