"""Pictures for the page: crops of cells at one scale, and whole fields."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image

from leukokit.crops.cut import cut_crops
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.review.cells import ReviewBatch, ReviewCell, ReviewField
from leukokit.smear import Smear, read_smear

PICTURE_PX: Final = 128
CROP_DIAMETERS: Final = 3.2
"""Side of a crop in erythrocyte diameters, about 24 um: the largest leukocytes fit."""
CROP_BOXES: Final = 1.6
"""Side of a crop in longer sides of the cell's box, where the field has no ruler."""
FIELD_PX: Final = 2400
"""Longest side of a field as the page shows it."""


class Pictures:
    """Cuts crops and fields; keeps the fields read last: neighbouring cells are asked for together."""

    def __init__(self, batch: ReviewBatch, keep: int = 6) -> None:
        self._batch = batch
        self._read = lru_cache(keep)(self._read_field)

    def crop(self, cell: ReviewCell) -> bytes:
        """Return a cell's crop, 128 x 128 pixels, as JPEG.

        Raises:
            ImageError: the image can no longer be read.
        """
        field = self._batch.fields[cell.key.image]
        box = np.array([cell.box], dtype=np.float32)
        side = CROP_DIAMETERS * (field.erythrocyte_diameter_px or 0)
        side = side or CROP_BOXES * float(max(box[0, 2] - box[0, 0], box[0, 3] - box[0, 1], 1))
        (crop,) = cut_crops(self._read(field), box, np.array([side], dtype=np.float32), PICTURE_PX)
        return _jpeg(crop)

    def field(self, field: ReviewField) -> bytes:
        """Return a whole field, at most 2,400 pixels on its longer side, as JPEG.

        Raises:
            ImageError: the image can no longer be read.
        """
        image = self._read(field).image
        return _jpeg(scale_image(image, min(1.0, FIELD_PX / max(image.shape[:2]))))

    def _read_field(self, field: ReviewField) -> Smear:
        return read_smear(field.path)


def _jpeg(image: RGBImage) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=88)
    return stream.getvalue()
