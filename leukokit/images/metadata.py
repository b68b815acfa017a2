"""An image's EXIF orientation, and the warnings that come with damaged metadata."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from leukokit.images.depth import RGBImage

if TYPE_CHECKING:
    from PIL import Image

PROCESS_WIDE: Final = threading.Lock()
"""Held while settings that belong to the whole process are changed for one image."""
ORIENTATION: Final = 0x0112
"""The tag of the orientation, in EXIF and in TIFF."""
DAMAGED_EXIF: Final = "damaged EXIF used as far as it goes"
"""A note on how an image was read."""


@contextmanager
def caught_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Catch warnings instead of showing them; one thread at a time."""
    # The warning filters belong to the process: two threads must not swap them at once.
    with PROCESS_WIDE, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def orientation_of(read_exif: Callable[[], Image.Exif], notes: list[str]) -> object:
    """The orientation that an EXIF block gives, 1 where there is none; damage is noted, never raised."""
    try:
        with caught_warnings() as caught:
            orientation: object = read_exif().get(ORIENTATION, 1)
    except Exception:  # whatever is wrong with the EXIF, the pixels are whole
        notes.append("unreadable EXIF ignored")
        return 1
    if caught and DAMAGED_EXIF not in notes:
        notes.append(DAMAGED_EXIF)
    return orientation


def oriented(image: RGBImage, orientation: object) -> RGBImage:
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
