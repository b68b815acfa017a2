"""The one type of pixels in this package, and the one way to resize them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RGBImage = npt.NDArray[np.uint8]
"""RGB uint8 (H, W, 3)."""


def resize_image(image: RGBImage, width: int, height: int) -> RGBImage:
    """Return an image at another size in pixels: averaged where it shrinks, interpolated where it grows."""
    # Here, because reading an image does not need it.
    import cv2

    if image.shape[:2] == (height, width):
        return image
    shrinks = width * height < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), dtype=np.uint8)


def scale_image(image: RGBImage, factor: float) -> RGBImage:
    """Return an image with both sides multiplied by ``factor``, at least one pixel each."""
    height, width = image.shape[:2]
    return resize_image(image, max(1, round(width * factor)), max(1, round(height * factor)))
