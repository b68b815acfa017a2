"""Plain PNG files, which another library decodes, come out as Pillow would have them, or not at all."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from encoded import FIELD
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from leukokit.errors import ImageError
from leukokit.images import raster
from leukokit.images.png import decode_plain
from leukokit.smear import read_image, read_smear

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
PICTURES = SIDES.flatmap(lambda shape: arrays.arrays(np.uint8, (*shape, 3)))
LENGTHS = {b"pHYs": 9, b"gAMA": 4, b"sRGB": 1, b"cHRM": 32}
"""Chunks that are passed over, and their lengths."""
OTHERS = [b"iCCP", b"sBIT", b"bKGD", b"tIME", b"tRNS", b"eXIf", b"tEXt", b"acTL", b"zzZz", b"PLTE", b"CgBI"]


def chunk(kind: bytes, body: bytes, check: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ check)


def chunks_of(pixels: np.ndarray, level: int = 6) -> list[bytes]:
    """IHDR, IDAT, IEND."""
    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(rows.tobytes(), level)
    return [chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b"")]


def png(pixels: np.ndarray, *more: bytes) -> bytes:
    header, body, end = chunks_of(pixels)
    return SIGNATURE + header + b"".join(more) + body + end


def plain(data: bytes) -> np.ndarray | None:
    return decode_plain(io.BytesIO(data), data[:32], 1 << 20)


def by_pillow(data: bytes) -> np.ndarray | None:
    try:
        return raster.decode_pillow(io.BytesIO(data), data[:32], 1 << 20, [])[0]
    except Exception:
        return None


@given(PICTURES, st.integers(0, 9), st.sampled_from([None, *LENGTHS]))
def test_pixels_are_those_that_were_stored(pixels: np.ndarray, level: int, kind: bytes | None) -> None:
    header, body, end = chunks_of(pixels, level)
    beside = chunk(kind, bytes(LENGTHS[kind])) if kind else b""
    image = plain(SIGNATURE + header + beside + body + end + b"and more")
    assert image is not None and image.dtype == np.uint8 and np.array_equal(image, pixels)


@given(PICTURES, st.data())
def test_what_pillow_refuses_is_left_to_it(pixels: np.ndarray, data: st.DataObject) -> None:
    kinds, checks = st.sampled_from([*LENGTHS, *OTHERS]), st.sampled_from([0, 0, 1])
    parts = chunks_of(pixels)
    for _ in range(data.draw(st.integers(0, 2))):
        kind = data.draw(kinds)
        length = data.draw(st.sampled_from([0, 1, 3, LENGTHS.get(kind, 6)]))
        beside = chunk(kind, data.draw(st.binary(min_size=length, max_size=length)), data.draw(checks))
        parts.insert(data.draw(st.integers(0, len(parts))), beside)
    whole = bytearray(SIGNATURE + b"".join(parts))
    for place in data.draw(st.lists(st.integers(8, len(whole) - 1), max_size=2)):
        whole[place] ^= data.draw(st.integers(1, 255))
    given_bytes = bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole) // 2, 20]))])
    try:
        image = plain(given_bytes)
    except ImageError:
        image = None
    if image is not None:
        expected = by_pillow(given_bytes)
        assert expected is not None and np.array_equal(image, expected)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_may_mean_more_than_pixels_is_left_to_pillow(kind: bytes) -> None:
    assert plain(png(FIELD, chunk(kind, bytes(6)))) is None


@pytest.mark.parametrize("kind", LENGTHS)
def test_damaged_chunk_is_left_to_pillow(kind: bytes) -> None:
    assert plain(png(FIELD, chunk(kind, bytes(LENGTHS[kind]), 1))) is None
    assert plain(png(FIELD, chunk(kind, bytes(LENGTHS[kind] - 1)))) is None


def test_chunk_before_the_header_is_no_size(tmp_path: Path) -> None:
    header, body, end = chunks_of(FIELD)
    (tmp_path / "a.png").write_bytes(SIGNATURE + chunk(b"tEXt", b"by\0a camera") + header + body + end)
    assert np.array_equal(read_image(tmp_path / "a.png"), FIELD)


def test_what_follows_the_pixels_is_not_read() -> None:
    stream = io.BytesIO(png(FIELD) + bytes(10_000_000))
    assert decode_plain(stream, stream.getvalue()[:32], 1 << 20) is None
    assert stream.tell() < 1_000_000


def test_orientation_that_follows_the_pixels_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    header, body, end = chunks_of(FIELD)
    turned = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(SIGNATURE + header + body + turned + end)
    smear = read_smear(tmp_path / "a.png")
    assert np.array_equal(smear.image, FIELD[::-1, ::-1]) and smear.notes == ()
