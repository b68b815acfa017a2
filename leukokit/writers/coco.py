"""Writer ``coco``: one file in COCO's format (Lin et al. 2014, doi:10.1007/978-3-319-10602-1_48)."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from leukokit.plugin import PluginParams
from leukokit.results import SmearResult
from leukokit.taxonomy import KINDS
from leukokit.writers.base import Writer
from leukokit.writers.labels import cell_labels
from leukokit.writers.tables import GrowingFile


class CocoWriter(Writer):
    """``coco.json`` over all images: boxes as x, y, width, height in pixels, categories from 1.

    Categories are kinds; a classified leukocyte has ``attributes``: ``label``, ``probability`` (of its most
    probable class) and ``review``.

    An image's ``file_name`` is its path below the folder that was searched, with forward slashes. Annotations
    go to disk as they come; of the images only name and size are kept until the end.
    """

    name = "coco"
    version = "1.1"
    summary = "one coco.json for all images, boxes as [x, y, width, height]"
    file_per_image = False

    shared_files = ("coco.json",)

    def __init__(self, out: Path, params: PluginParams | None = None) -> None:
        super().__init__(out, params)
        self._images: list[dict[str, Any]] = []
        self._count = 0

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        cells, number = result.cells, len(self._images) + 1
        name = _image_file_name(result)
        size = {"width": result.smear.width, "height": result.smear.height}
        self._images.append({"id": number, "file_name": name, **size})
        for kind, score, (x1, y1, x2, y2), label in zip(
            cells.kinds.tolist(), cells.scores.tolist(), cells.boxes.tolist(), cell_labels(cells), strict=True
        ):
            box = [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)]
            row: dict[str, Any] = {
                "id": self._count + 1,
                "image_id": number,
                "category_id": kind + 1,
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "score": round(score, 4),
            }
            if label is not None:
                probability = round(label.probability, 4)
                row["attributes"] = {"label": label.name, "probability": probability, "review": label.review}
            self._file.write((",\n" if self._count else "\n") + json.dumps(row))
            self._count += 1

    @cached_property
    def _file(self) -> GrowingFile:
        """The file with its head; begun with the first image."""
        path = self.out / self.shared_files[0]
        self.require_free(path)
        file = GrowingFile(path)
        categories = [{"id": number, "name": kind} for number, kind in enumerate(KINDS, 1)]
        file.write('{"info": {"description": "leukokit; research use only"},\n')
        file.write(f'"categories": {json.dumps(categories)},\n"annotations": [')
        return file

    def close(self) -> None:
        """Write the images and give the file its name."""
        try:
            self._file.write(f'],\n"images": {json.dumps(self._images, ensure_ascii=False)}}}\n')
        finally:
            self.files.append(self._file.finish())


def _image_file_name(result: SmearResult) -> str:
    """Return the image's path below the folder that was searched, with forward slashes.

    Other tools look for images by this name below a folder that they are given, so it must not hold the path
    to that folder.
    """
    path, depth = result.smear.path, len(result.output_stem.parts)
    return (result.output_stem if path is None else Path(*path.parts[-depth:])).as_posix()
