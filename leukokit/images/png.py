"""PNG, its chunks checked one by one and decoded by imagecodecs.

Only the chunks that hold pixels reach the decoder: a large colour profile or text is no reason to refuse an
image, and a checksum that does not match is.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from leukokit.errors import ImageError
from leukokit.images.checks import REMEDY, check_room, check_size
from leukokit.images.depth import Samples
from leukokit.images.encoded import EncodedImage
from leukokit.images.metadata import orientation_of
from leukokit.images.pixels import RGBImage

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
_TEXT_CHUNKS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels by colour type: grey, RGB, palette, grey and alpha, RGBA."""
_PASSES: Final = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""First column and row, and steps, of the passes of an interlaced image."""
DEFLATE_RATIO: Final = 1032
"""Most bytes that a byte of deflate can stand for."""
LONGEST_TEXT: Final = 1 << 20
"""Bytes of a text chunk above which it is not searched for an orientation."""


@dataclass(slots=True)
class _PngHeader:
    width: int = 0
    height: int = 0
    depth: int = 0
    colour_type: int = 0
    is_interlaced: bool = False
    exif: bytes = b""
    xmp: bytes = b""
    is_animated: bool = False
    pixel_bytes: int = 0
    is_complete: bool = False
    damaged: list[str] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return _CHANNELS[self.colour_type]

    @property
    def raw_bytes(self) -> int:
        """Bytes of the rows before compression, each with its filter byte."""
        bits = self.depth * self.channels
        if not self.is_interlaced:
            return self.height * (1 + -(-self.width * bits // 8))
        total = 0
        for column, row, across, down in _PASSES:
            width, height = -(-(self.width - column) // across), -(-(self.height - row) // down)
            if width > 0 and height > 0:
                total += height * (1 + -(-width * bits // 8))
        return total


def open_png(stream: BinaryIO, max_pixels: int, notes: list[str]) -> EncodedImage:
    """Read the header of a PNG file, and the chunks that may hold its orientation.

    Raises:
        ImageError: it is too large, truncated or damaged.
    """
    header = _read_png_header(stream, max_pixels)
    if header.is_animated:
        notes.append("the first frame of an animation was read")
    if header.damaged:
        notes.append(f"damaged metadata ignored ({', '.join(dict.fromkeys(header.damaged))})")
    pixels = header.width * header.height
    decoded = pixels * (4 if header.colour_type == 3 else header.channels) * (2 if header.depth == 16 else 1)
    return EncodedImage(
        header.width,
        header.height,
        orientation_of(header.exif, header.xmp, notes),
        2 * header.pixel_bytes + decoded + (0 if _is_simple(header) else 3 * pixels),
        partial(_decode_png, stream, header, notes),
    )


def _is_simple(header: _PngHeader) -> bool:
    return (header.depth, header.colour_type, header.is_interlaced) == (8, 2, False)


def _decode_png(stream: BinaryIO, header: _PngHeader, notes: list[str]) -> RGBImage:
    import imagecodecs

    parts, has_transparency = [_SIGNATURE], False
    for kind, length, at in _chunks(stream):
        if kind not in _PIXEL_CHUNKS:
            continue
        stream.seek(at - 8)
        chunk = stream.read(length + 12)
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise ImageError(f"is damaged: the checksum of a chunk {kind.decode()} is wrong; {REMEDY}")
        parts.append(chunk)
        has_transparency |= kind == b"tRNS"
    parts.append(_chunk(b"IEND", b""))
    data = b"".join(parts)
    del parts
    if not header.is_complete:
        notes.append("the end of the PNG is missing; all pixels are there")
    if _is_simple(header) and not has_transparency:
        # The quickest decoder (benchmarks/batch.py), and as strict as the other.
        return np.asarray(imagecodecs.spng_decode(data), np.uint8)
    return Samples.of_channels(imagecodecs.png_decode(data)).to_rgb(notes)


def _read_png_header(stream: BinaryIO, max_pixels: int) -> _PngHeader:
    header, has_palette = _PngHeader(), False
    for number, (kind, length, at) in enumerate(_chunks(stream)):
        if (number == 0) != (kind == b"IHDR"):
            raise ImageError(f"is damaged (its first chunk is not the header); {REMEDY}")
        if kind == b"IHDR":
            _parse_header(header, _content(stream, at, length))
            check_size(header.width, header.height, max_pixels)
        elif kind == b"IDAT":
            header.pixel_bytes += length
        elif kind == b"PLTE":
            has_palette = True
        elif kind == b"acTL":
            header.is_animated = True
        elif kind == b"IEND":
            header.is_complete = True
        elif (kind in _TEXT_CHUNKS or kind == b"eXIf") and length <= LONGEST_TEXT:
            _read_metadata(header, kind, _content(stream, at, length + 4))
    if not header.pixel_bytes or (header.colour_type == 3 and not has_palette):
        raise ImageError(f"is truncated or damaged (no pixels); {REMEDY}")
    check_room(header.width, header.height, header.raw_bytes / DEFLATE_RATIO - 64, header.pixel_bytes)
    return header


def _parse_header(header: _PngHeader, content: bytes) -> None:
    header.width, header.height = (int.from_bytes(content[at : at + 4], "big") for at in (0, 4))
    if len(content) != 13 or content[9] not in _CHANNELS or content[8] not in (1, 2, 4, 8, 16):
        raise ImageError(f"is damaged (its header is not one of a PNG); {REMEDY}")
    header.depth, header.colour_type, header.is_interlaced = content[8], content[9], content[12] != 0


def _read_metadata(header: _PngHeader, kind: bytes, content: bytes) -> None:
    """Take EXIF and XMP out of a chunk's content, which its checksum follows."""
    content, check = content[:-4], int.from_bytes(content[-4:], "big")
    if zlib.crc32(kind + content) != check:
        header.damaged.append(kind.decode())
    elif kind == b"eXIf":
        header.exif = content
    else:
        name, _, rest = content.partition(b"\0")
        if name == b"XML:com.adobe.xmp":
            header.xmp = rest
        elif name == b"Raw profile type exif" and not header.exif:
            header.exif = _raw_profile(_inflated(rest[1:]) if kind == b"zTXt" else rest)


def _raw_profile(text: bytes) -> bytes:
    """Return what ImageMagick writes as hexadecimal digits after a name and a length."""
    digits = re.sub(rb"\s", b"", b"".join(text.split(b"\n")[3:]))
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, LONGEST_TEXT)
    except zlib.error:
        return b""


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, length and position of the content of each chunk up to the end.

    Raises:
        ImageError: a chunk is longer than the file.
    """
    size = stream.seek(0, os.SEEK_END)
    at = len(_SIGNATURE)
    while at < size:
        stream.seek(at)
        start = stream.read(8)
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if len(start) < 8 or at + 12 + length > size:
            raise ImageError(f"is truncated (a chunk is cut off); {REMEDY}")
        yield kind, length, at + 8
        if kind == b"IEND":
            return
        at += 12 + length


def _content(stream: BinaryIO, at: int, length: int) -> bytes:
    stream.seek(at)
    return stream.read(length)


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
