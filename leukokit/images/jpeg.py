"""JPEG, decoded strictly: what a lenient decoder fills with grey is an error here.

A JPEG that lost its end or a part of its middle decodes without complaint in most programs, with flat or
scrambled blocks in place of cells. libjpeg warns of it; simplejpeg turns these warnings into errors.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final

import numpy as np

from leukokit.errors import ImageError
from leukokit.images.checks import REMEDY, check_room, check_size
from leukokit.images.depth import Samples
from leukokit.images.encoded import EncodedImage
from leukokit.images.metadata import orientation_of
from leukokit.images.pixels import RGBImage

PIXELS_PER_BYTE: Final = 1024
"""Most pixels that a byte of a JPEG can stand for: each 8 x 8 block takes a bit or more, with some margin."""
MOST_SCANS: Final = 500
"""Most scans of a JPEG; cameras write up to about ten, and each may take as long as the whole image."""
MOST_EXTRANEOUS: Final = 16
"""Bytes between the last pixel and the end marker that some cameras write."""
_END: Final = b"\xff\xd9"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(slots=True)
class _JpegHeader:
    frame: int = 0
    precision: int = 0
    width: int = 0
    height: int = 0
    components: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    is_multi_picture: bool = False


def open_jpeg(stream: BinaryIO, max_pixels: int, notes: list[str]) -> EncodedImage:
    """Read the header of a JPEG file.

    Raises:
        ImageError: it is too large, damaged, or of an unsupported coding.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    header = _read_jpeg_header(stream)
    check_size(header.width, header.height, max_pixels)
    check_room(header.width, header.height, header.width * header.height / PIXELS_PER_BYTE - 1024, size)
    if header.frame in _LOSSLESS or header.precision not in (8, 12) or header.components not in (1, 3, 4):
        raise ImageError(
            f"is a JPEG of an unsupported coding ({header.components} times {header.precision} bits); "
            "export it as PNG or TIFF"
        )
    if header.is_multi_picture:
        notes.append("the first picture of a multi-picture JPEG was read")
    pixels = header.width * header.height
    return EncodedImage(
        header.width,
        header.height,
        orientation_of(header.exif, header.xmp, notes),
        size + pixels * (3 if header.precision == 8 else 12),
        partial(_decode_jpeg, stream, header, notes),
    )


def decode_strictly(data: bytes, colours: str, notes: list[str], reduced: bool = False) -> RGBImage:
    """Decode 8-bit JPEG data, and refuse data that a decoder would complete by guessing.

    Args:
        data: a whole JPEG.
        colours: ``RGB``, ``GRAY`` or ``CMYK``.
        notes: gets a note where the end is irregular although all pixels are there.
        reduced: whether an eighth of the size is enough, which is quicker and as strict.

    Returns:
        uint8 (H, W, C).

    Raises:
        ImageError: data is missing or damaged.
    """
    import simplejpeg

    factor = 8 if reduced else 1
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours, min_factor=factor, strict=True), np.uint8)
    except ValueError as error:
        reason = str(error)
        if "Premature end of JPEG file" in reason and not data.endswith(_END):
            image = decode_strictly(data + _END, colours, [], reduced)
            notes.append("the end marker of the JPEG is missing; all pixels are there")
            return image
        extraneous = re.match(r"Corrupt JPEG data: (\d+) extraneous bytes", reason)
        is_harmless = (
            int(extraneous[1]) <= MOST_EXTRANEOUS
            if extraneous
            else not reason.startswith(("Corrupt JPEG data", "Premature end")) or "ICC" in reason
        )
        if is_harmless:
            image = simplejpeg.decode_jpeg(data, colours, min_factor=factor, strict=False)
            return np.asarray(image, np.uint8)
        raise ImageError(f"is truncated or damaged ({reason}); {REMEDY}") from error


def _decode_jpeg(stream: BinaryIO, header: _JpegHeader, notes: list[str]) -> RGBImage:
    stream.seek(0)
    data = stream.read()
    # Within coded pixels, 0xff is never followed by 0xda.
    if data.count(b"\xff\xda") > MOST_SCANS:
        raise ImageError(f"has more than {MOST_SCANS} scans, which no camera writes; export it again")
    if header.precision == 12:
        import imagecodecs

        samples = imagecodecs.jpeg8_decode(data)
        return Samples.of_channels(samples, bits=12).to_rgb(notes)
    if header.components != 4:
        return decode_strictly(data, "RGB", notes)
    decode_strictly(data, "CMYK", notes)
    return _convert_cmyk(data)


def _convert_cmyk(data: bytes) -> RGBImage:
    import io

    from PIL import JpegImagePlugin

    # The class itself, because Image.open applies Pillow's own process-wide pixel limit.
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data if data.endswith(_END) else data + _END))
    return np.asarray(picture.convert("RGB"))


def _read_jpeg_header(stream: BinaryIO) -> _JpegHeader:
    header = _JpegHeader()
    stream.read(2)
    while not header.frame:
        marker = _next_marker(stream)
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(stream.read(2), "big") - 2
        content = stream.read(max(length, 0))
        if length < 0 or len(content) < length or marker in (0xD9, 0xDA):
            raise ImageError(f"is truncated or damaged (no frame header); {REMEDY}")
        if marker in _FRAMES and length >= 6:
            header.frame, header.precision, header.components = marker, content[0], content[5]
            header.height, header.width = (int.from_bytes(content[at : at + 2], "big") for at in (1, 3))
        elif marker == 0xE1 and content.startswith(b"Exif\0"):
            # A block above 64 KB goes on in the next segment.
            header.exif += content if not header.exif else content[6:]
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            header.xmp += content
        elif marker == 0xE2 and content.startswith(b"MPF\0"):
            header.is_multi_picture = True
    return header


def _next_marker(stream: BinaryIO) -> int:
    byte = stream.read(1)
    while byte and byte != b"\xff":
        byte = stream.read(1)
    while byte == b"\xff":
        byte = stream.read(1)
    if not byte:
        raise ImageError(f"is truncated or damaged (no frame header); {REMEDY}")
    return byte[0]
