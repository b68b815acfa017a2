"""An image file whose header has been read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leukokit.images.pixels import RGBImage


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """What a header says, and how to decode the rest.

    Attributes:
        width: as stored, before the orientation is applied, pixels.
        height: as stored, pixels.
        orientation: TIFF/EXIF orientation, 1 for upright.
        peak_bytes: memory that decoding takes at most, about.
        decode: returns RGB uint8 (height, width, 3) as stored; raises whatever a decoder makes of damage.
    """

    width: int
    height: int
    orientation: object
    peak_bytes: int
    decode: Callable[[], RGBImage]
