"""An image file's format, recognised by its first bytes, and what decodes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from leukokit.errors import ImageError
from leukokit.images.checks import REMEDY
from leukokit.images.encoded import EncodedImage
from leukokit.images.jpeg import open_jpeg
from leukokit.images.metadata import turn_upright
from leukokit.images.pixels import RGBImage
from leukokit.images.png import open_png
from leukokit.images.raster import open_bmp, open_webp
from leukokit.images.tiff import open_tiff


def decode(stream: BinaryIO, max_pixels: int) -> tuple[RGBImage, list[str]]:
    """Decode an image file.

    Args:
        stream: the file, seekable, at its start.
        max_pixels: larger images are refused by their header, before anything is decoded.

    Returns:
        RGB uint8 (H, W, 3), upright and C-contiguous, and sentences for the user about how it was read.

    Raises:
        ImageError: empty, of no known kind, too large, truncated or damaged; without the path.
        Exception: whatever a decoder makes of damaged bytes.
    """
    notes: list[str] = []
    encoded = open_encoded(stream, max_pixels, notes)
    return turn_upright(encoded.decode(), encoded.orientation), notes


def open_encoded(stream: BinaryIO, max_pixels: int, notes: list[str]) -> EncodedImage:
    """Read the header of an image file; see ``decode`` for arguments and errors."""
    head = stream.read(32)
    stream.seek(0)
    if not head:
        raise ImageError(f"is empty (0 bytes); {REMEDY}")
    opener: Callable[[BinaryIO, int, list[str]], EncodedImage]
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        opener = open_tiff
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        opener = open_webp
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        opener = open_png
    elif head.startswith(b"\xff\xd8\xff"):
        opener = open_jpeg
    elif head.startswith(b"BM"):
        opener = open_bmp
    else:
        raise ImageError(
            "is not an image of a known kind (JPEG, PNG, BMP, WebP, TIFF); export it as PNG or TIFF"
        )
    return opener(stream, max_pixels, notes)
