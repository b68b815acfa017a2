"""What every format is checked for before anything is decoded."""

from __future__ import annotations

from typing import Final

from leukokit.errors import ImageError

AGAIN: Final = "copy or export it again"
"""What to do about a damaged file, as every message ends."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image without pixels or with too many.

    Raises:
        ImageError: one or the other.
    """
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width} x {height}); {AGAIN}")
    if width * height > max_pixels:
        raise ImageError(
            f"is too large: {width} x {height} = {width * height:,} pixels, the limit is {max_pixels:,}; "
            "crop or reduce it, or raise the limit"
        )
