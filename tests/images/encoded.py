"""Pictures, and the files that hold them: what the tests of reading share."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from leukokit.errors import ImageError
from leukokit.smear import read_smear

RGB = npt.NDArray[np.uint8]
ORIENTATION = 0x0112


def make_field(height: int = 48, width: int = 70) -> RGB:
    """A smooth, lopsided picture: no two of its eight orientations are alike, and JPEG hardly harms it."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    field = np.stack([60 + 190 * x, 40 + 200 * y, 250 - 120 * x - 90 * y], axis=-1)
    cell = 1 - 0.4 * np.exp(-((x - 0.3) ** 2 + (y - 0.3) ** 2) / 0.05)
    return np.asarray(np.round(field * cell[..., None]), dtype=np.uint8)


FIELD = make_field()
GREY = FIELD[..., 1]
ALPHA = np.where(np.arange(FIELD.shape[1]) < 30, 255, 102).astype(np.uint8) * np.ones_like(GREY)
ON_WHITE = np.round(FIELD * (ALPHA / 255)[..., None] + 255 - ALPHA[..., None]).astype(np.uint8)
GREY_ON_WHITE = np.round(GREY * (ALPHA / 255) + 255 - ALPHA).astype(np.uint8)
WIDE12 = np.round(FIELD / 255 * 4095).astype(np.uint16)
WIDE16 = FIELD.astype(np.uint16) * 257


def with_channel(image: npt.NDArray[Any], channel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.dstack([image, channel])


def grey_rgb(grey: npt.NDArray[Any]) -> RGB:
    return np.dstack([grey] * 3).astype(np.uint8)


def pillow(pixels: npt.NDArray[Any], mode: str | None = None, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        picture = Image.fromarray(pixels)
        (picture.convert(mode) if mode else picture).save(path, **options)

    return write


def tiff(pixels: npt.NDArray[Any], **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tifffile.imwrite(path, pixels, **options)

    return write


def raw(data: bytes | bytearray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def png_with_colour_key(*key: int) -> bytes:
    """A 16-bit PNG of 2048 in every channel but for a row of the key's colour, which is transparent."""
    values = np.full((3, 4, len(key)), 2048, np.uint16)
    values[1] = key
    data = imagecodecs.png_encode(values if len(key) > 1 else values[..., 0])
    return png_with_chunk(bytes(data), b"tRNS" + struct.pack(f">{len(key)}H", *key))


def png_with_chunk(data: bytes, chunk: bytes) -> bytes:
    at = data.index(b"IDAT") - 4
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:at] + whole + data[at:]


def packed_12_bit(path: Path) -> None:
    """A 4 x 3 grey TIFF of 12-bit samples, each 2056, packed two in three bytes."""
    samples = bytes([0x80, 0x88, 0x08]) * 6
    entries = [(256, 4, 4), (257, 4, 3), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 3), (279, 4, len(samples))]
    ifd = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + ifd + bytes(4))


PALETTED = Image.fromarray(FIELD).quantize(32)
PALETTED_RGB = np.asarray(PALETTED.convert("RGB"))
CORNER = (np.asarray(PALETTED) == PALETTED.getpixel((0, 0)))[..., None]
BLACK_WHITE = np.where(GREY > 127, 255, 0)
YCBCR = np.asarray(Image.fromarray(FIELD).convert("YCbCr"))
BIG = make_field(192, 320)  # whole tiles: encoders pad the others with black, which bleeds


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    every: dict[str, dict[str, Any]] = {"lzw": {"compression": "tiff_lzw"}, "webp": {"lossless": True}}
    formats = {"jpg": "JPEG", "tif": "TIFF", "lzw": "TIFF"}
    Image.fromarray(make_field(60, 80)).save(buffer, formats.get(kind, kind.upper()), **every.get(kind, {}))
    return buffer.getvalue()


SAMPLES = {kind: encoded(kind) for kind in ("jpg", "png", "bmp", "webp", "tif", "lzw")}
SAMPLES["png16"] = bytes(imagecodecs.png_encode(WIDE16))


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        read_smear(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name.replace("\n", "\\n") in message
    assert ";" in message, "an error says what to do"
    return message
