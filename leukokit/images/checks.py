"""What every format is checked for before anything is decoded."""

from __future__ import annotations

from typing import Final

from leukokit.errors import ImageError

REMEDY: Final = "copy or export it again"
"""What to do about a damaged file, as every message ends."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image without pixels or with too many.

    Raises:
        ImageError: one or the other.
    """
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width} x {height}); {REMEDY}")
    if width * height > max_pixels:
        raise ImageError(
            f"is too large: {width} x {height} = {width * height:,} pixels, the limit is {max_pixels:,}; "
            "crop or reduce it, or raise the limit"
        )


def check_room(width: int, height: int, needed: float, available: int) -> None:
    """Refuse a header that promises more than the file can hold, before memory is claimed for it.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        needed: fewest bytes in which the format can store so many pixels.
        available: bytes of the file.

    Raises:
        ImageError: the file is too small.
    """
    if needed > available:
        raise ImageError(
            f"is truncated or damaged: {available:,} bytes cannot hold {width} x {height} pixels; {REMEDY}"
        )
