"""The plainest PNG files, decoded by imagecodecs in less time than Pillow takes (benchmarks/batch.py)."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from leukokit.images.checks import check_size
from leukokit.images.depth import RGBImage

_SIGNATURE: Final = 8
_HEADER: Final = b"\0\0\0\x0dIHDR"
_RGB_8_BIT: Final = b"\x08\x02\0\0\0"
"""What a header says after the size: eight bits, three colours, not interlaced."""
_LENGTHS: Final = {b"IHDR": 13, b"pHYs": 9, b"gAMA": 4, b"sRGB": 1, b"cHRM": 32, b"IEND": 0}
"""Chunks beside the pixels' that change nothing as this toolkit reads a picture, and how long they are."""
_SLACK: Final = 1 << 16


def decode_plain(stream: BinaryIO, head: bytes, max_pixels: int) -> RGBImage | None:
    """The pixels of a PNG file of 8-bit RGB, without transparency and without anything that may turn it.

    Args:
        stream: the file, at its start.
        head: its first 32 bytes.
        max_pixels: of larger images nothing is read.

    Returns:
        RGB uint8 (H, W, 3); None for any other file, damaged ones included: Pillow has more to say of them.

    Raises:
        ImageError: it has too many pixels, or none.
    """
    if head[8:16] != _HEADER or head[24:29] != _RGB_8_BIT:
        return None
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    check_size(width, height, max_pixels)
    # No encoder makes more of pixels than this: of what comes after them nothing need be read.
    most = 2 * height * (1 + 3 * width) + _SLACK
    data = stream.read(most)
    if len(data) == most or not _holds_pixels_alone(data):
        return None
    import imagecodecs

    try:
        return np.asarray(imagecodecs.spng_decode(data), np.uint8)
    except Exception:  # whatever the decoder makes of damaged bytes
        return None


def _holds_pixels_alone(data: bytes) -> bool:
    """Whether all chunks up to the end are whole and of those that are known here."""
    at = _SIGNATURE
    while len(start := data[at : at + 8]) == 8:
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        end = at + 12 + length
        if kind != b"IDAT":
            check = int.from_bytes(data[end - 4 : end], "big")
            if length != _LENGTHS.get(kind) or zlib.crc32(data[at + 4 : end - 4]) != check:
                return False
        if kind == b"IEND":
            return True
        at = end
    return False


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + check


_MARK: Final = _chunk(b"tEXt", b"Software\0leukokit picture")
_MARK_AT: Final = 33
"""Position after the header chunk, which has a fixed length."""


def mark_as_drawn(png: bytes) -> bytes:
    """Return a PNG file with a text that tells that leukokit drew it: folders of smears skip such files."""
    return png[:_MARK_AT] + _MARK + png[_MARK_AT:]


def is_drawn_by_leukokit(path: Path) -> bool:
    """Return whether a file has the text of ``mark_as_drawn``; False where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError:
        return False
