"""An image's orientation as EXIF and XMP give it, and the warnings that come with damaged metadata."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from leukokit.images.pixels import RGBImage

PROCESS_WIDE: Final = threading.Lock()
"""Held while settings of the whole process are changed for one image."""
ORIENTATION: Final = 0x0112
"""The tag of the orientation, in EXIF and in TIFF."""


@contextmanager
def capture_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect warnings instead of showing them; one thread at a time."""
    # The warning filters belong to the process: two threads must not swap them at once.
    with PROCESS_WIDE, warnings.catch_warnings(record=True) as captured:
        warnings.simplefilter("always")
        yield captured


def orientation_of(exif: bytes, xmp: bytes, notes: list[str]) -> int:
    """Return the orientation that an EXIF block gives, or else an XMP packet; 1 where neither does.

    Args:
        exif: the block, with or without its leading ``Exif``; empty where there is none.
        xmp: the packet; empty where there is none.
        notes: gets a note where the EXIF is damaged; that is never an error.
    """
    from PIL import Image

    try:
        with capture_warnings() as captured:
            block = Image.Exif()
            if exif:
                block.load(exif)
            orientation: object = block.get(ORIENTATION)
    except Exception:  # whatever is wrong with the EXIF, the pixels are whole
        notes.append("unreadable EXIF ignored")
        return 1
    if captured:
        notes.append("damaged EXIF used as far as possible")
    if orientation is None and (found := re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp)):
        orientation = int(found[1])
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def upright_size(width: int, height: int, orientation: object) -> tuple[int, int]:
    """Return width and height after ``turn_upright``."""
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def turn_upright(image: RGBImage, orientation: object) -> RGBImage:
    """Undo the TIFF/EXIF orientation (2..8; anything else is upright)."""
    transposed = image.transpose(1, 0, 2)
    turned = {
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: transposed,
        6: transposed[:, ::-1],
        7: transposed[::-1, ::-1],
        8: transposed[::-1],
    }
    return np.ascontiguousarray(turned.get(orientation, image) if isinstance(orientation, int) else image)
