"""An image file's format, told by its first bytes, and what decodes it."""

from __future__ import annotations

from typing import BinaryIO

from leukokit.errors import ImageError
from leukokit.images.checks import AGAIN
from leukokit.images.depth import RGBImage
from leukokit.images.metadata import oriented
from leukokit.images.raster import decode_pillow, decode_png, decode_webp
from leukokit.images.tiff import decode_tiff


def decode(stream: BinaryIO, max_pixels: int) -> tuple[RGBImage, list[str]]:
    """Pixels of an image file, told apart by content, and what a user should be told of how it was read.

    Args:
        stream: the file, seekable, at its start.
        max_pixels: refuse larger images; judged by the header, before anything is decoded.

    Returns:
        RGB uint8 (H, W, 3), upright and C-contiguous, and the notes, a sentence each.

    Raises:
        ImageError: empty, of no known kind, too large, or found truncated or damaged; without the path.
        Exception: whatever a decoder makes of damaged bytes.
    """
    head = stream.read(32)
    stream.seek(0)
    notes: list[str] = []
    if not head:
        raise ImageError(f"is empty (0 bytes); {AGAIN}")
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        image, orientation = decode_tiff(stream, max_pixels, notes)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        image, orientation = decode_webp(stream, max_pixels, notes)
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        image, orientation = decode_png(stream, head, max_pixels, notes)
    elif head.startswith((b"\xff\xd8\xff", b"BM")):
        image, orientation = decode_pillow(stream, head, max_pixels, notes)
    else:
        raise ImageError(
            "is not an image of a known kind (JPEG, PNG, BMP, WebP, TIFF); export it as PNG or TIFF"
        )
    return oriented(image, orientation), notes
