"""Plain PNG files, which another library decodes, come out as Pillow would have them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from encoded import FIELD, png_with_chunk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from leukokit.image_files.png import decode_plain
from leukokit.smear import read_image

SIDES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
PICTURES = SIDES.flatmap(lambda shape: arrays.arrays(np.uint8, (*shape, 3)))


def png(pixels: np.ndarray, level: int = 6) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=level)
    return stream.getvalue()


def by_pillow(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError, ValueError, zlib.error):
        return None


@given(PICTURES, st.integers(0, 9))
def test_pixels_are_those_that_were_stored(pixels: np.ndarray, level: int) -> None:
    image = decode_plain(png(pixels, level))
    assert image is not None and image.dtype == np.uint8 and np.array_equal(image, pixels)


@given(PICTURES, st.data())
def test_damaged_file_is_left_to_pillow_or_is_what_it_was(pixels: np.ndarray, data: st.DataObject) -> None:
    whole = png(pixels)
    damaged = bytearray(whole[: data.draw(st.integers(8, len(whole)))])
    for place in data.draw(st.lists(st.integers(8, len(whole) - 1), max_size=3)):
        if place < len(damaged):
            damaged[place] ^= data.draw(st.integers(1, 255))
    image = decode_plain(bytes(damaged))
    expected = by_pillow(bytes(damaged))
    assert image is None or (expected is not None and np.array_equal(image, expected))


@pytest.mark.parametrize("kind", [b"tRNS", b"eXIf", b"tEXt", b"acTL", b"zzZz"])
def test_what_may_mean_more_than_pixels_is_left_to_pillow(kind: bytes) -> None:
    assert decode_plain(png_with_chunk(png(FIELD), kind + bytes(6))) is None
    assert decode_plain(png_with_chunk(png(FIELD), b"pHYs" + bytes(9))) is not None


def test_orientation_that_follows_the_pixels_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    data = png(FIELD)
    end = data.index(b"IEND") - 4
    length, check = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data[:end] + length + chunk + check + data[end:])
    assert np.array_equal(read_image(tmp_path / "a.png"), FIELD[::-1, ::-1])
