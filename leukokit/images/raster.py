"""WebP, decoded by imagecodecs, and BMP, decoded by Pillow."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, BinaryIO, Final

import numpy as np

from leukokit.errors import ImageError
from leukokit.images.checks import REMEDY, check_room, check_size
from leukokit.images.depth import Samples
from leukokit.images.encoded import EncodedImage
from leukokit.images.metadata import PROCESS_WIDE, orientation_of
from leukokit.images.pixels import RGBImage

_RUN_LENGTHS: Final = frozenset({1, 2})
"""Compressions of BMP in which two bytes stand for up to 255 pixels."""


def open_bmp(stream: BinaryIO, max_pixels: int, notes: list[str]) -> EncodedImage:
    """Read the header of a BMP file.

    Raises:
        ImageError: it is too large, truncated or damaged.
    """
    from PIL import BmpImagePlugin

    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(34)
    stream.seek(0)
    # The class itself, because Image.open applies Pillow's own process-wide pixel limit.
    picture: Any = BmpImagePlugin.BmpImageFile(stream)
    width, height = picture.size
    check_size(width, height, max_pixels)
    is_old = int.from_bytes(head[14:18], "little") == 12
    bits = int.from_bytes(head[24:26] if is_old else head[28:30], "little")
    compression = 0 if is_old else int.from_bytes(head[30:34], "little")
    row = 4 * -(-width * max(bits, 1) // 32)
    needed = (
        width * height / 127 - 64 if compression in _RUN_LENGTHS else row * (height - 1) + width * bits // 8
    )
    check_room(width, height, needed, size)
    return EncodedImage(width, height, 1, size + 7 * width * height, partial(_decode_bmp, picture, notes))


def _decode_bmp(picture: Any, notes: list[str]) -> RGBImage:
    _load_whole(picture)
    has_alpha = picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info
    return Samples.of_channels(np.asarray(picture.convert("RGBA" if has_alpha else "RGB"))).to_rgb(notes)


def _load_whole(picture: Any) -> None:
    from PIL import ImageFile

    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        picture.load()
        return
    # Another library in this process has asked for half images; this one must not get any.
    with PROCESS_WIDE:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            picture.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def open_webp(stream: BinaryIO, max_pixels: int, notes: list[str]) -> EncodedImage:
    """Read the header of a WebP file.

    Raises:
        ImageError: it is too large, truncated, or has no header.
    """
    data = stream.read()
    width, height = _webp_size(data)
    check_size(width, height, max_pixels)
    chunks = _webp_chunks(data)
    if b"ANMF" in chunks:
        notes.append("the first frame of an animation was read")
    orientation = orientation_of(chunks.get(b"EXIF", b""), chunks.get(b"XMP ", b""), notes)
    return EncodedImage(
        width, height, orientation, len(data) + 7 * width * height, partial(_decode_webp, data, notes)
    )


def _decode_webp(data: bytes, notes: list[str]) -> RGBImage:
    # Not by Pillow, which holds four canvases of four bytes per pixel while it decodes.
    import imagecodecs

    return Samples.of_channels(imagecodecs.webp_decode(data)).to_rgb(notes)


def _webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """First chunk of each kind, pixels left out.

    Raises:
        ImageError: the file is shorter than its header says.
    """
    if 8 + int.from_bytes(data[4:8], "little") > len(data) + 1:
        raise ImageError(f"is truncated ({len(data):,} bytes); {REMEDY}")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        is_metadata = kind in (b"EXIF", b"XMP ")
        chunks.setdefault(kind, data[at + 8 : at + 8 + length] if is_metadata else b"")
        at += 8 + length + length % 2
    return chunks


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind, start = data[12:16], data[20:30]
    if len(start) == 10 and kind == b"VP8X":
        return int.from_bytes(start[4:7], "little") + 1, int.from_bytes(start[7:10], "little") + 1
    if len(start) == 10 and kind == b"VP8L":
        bits = int.from_bytes(start[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(start) == 10 and kind == b"VP8 ":
        return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF
    raise ImageError(f"is truncated or damaged (no WebP header); {REMEDY}")
