"""Pictures: one array type, and one way to resize it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

RGBImage = npt.NDArray[np.uint8]
"""RGB uint8 (H, W, 3)."""


def resize_image(image: RGBImage, width: int, height: int) -> RGBImage:
    """The picture at another size: averaged where it shrinks, interpolated where it grows."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = width * height < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def scale_image(image: RGBImage, factor: float) -> RGBImage:
    """The picture with both sides multiplied by ``factor``, at least one pixel each."""
    height, width = image.shape[:2]
    return resize_image(image, max(1, round(width * factor)), max(1, round(height * factor)))
