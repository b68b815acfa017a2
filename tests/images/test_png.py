"""PNG files come out as Pillow would have them, or not at all; what is beside the pixels does no harm."""

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
from leukokit.images.decoding import decode
from leukokit.smear import read_smear

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
PICTURES = SIDES.flatmap(lambda shape: arrays.arrays(np.uint8, (*shape, 3)))
LENGTHS = {b"pHYs": 9, b"gAMA": 4, b"sRGB": 1, b"cHRM": 32}
"""Chunks that change nothing, and their lengths."""
OTHERS = [b"iCCP", b"sBIT", b"bKGD", b"tIME", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"acTL", b"zzZz"]


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


def read(data: bytes) -> tuple[np.ndarray, list[str]]:
    return decode(io.BytesIO(data), 1 << 20)


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(data)
    return str(caught.value)


@given(PICTURES, st.integers(0, 9), st.sampled_from([None, *LENGTHS]))
def test_pixels_are_those_that_were_stored(pixels: np.ndarray, level: int, kind: bytes | None) -> None:
    header, body, end = chunks_of(pixels, level)
    beside = chunk(kind, bytes(LENGTHS[kind])) if kind else b""
    image, notes = read(SIGNATURE + header + beside + body + end + b"and more")
    assert image.dtype == np.uint8 and np.array_equal(image, pixels) and notes == []


@given(PICTURES, st.data())
def test_what_is_read_is_what_pillow_reads(pixels: np.ndarray, data: st.DataObject) -> None:
    kinds, checks = st.sampled_from([*LENGTHS, *OTHERS]), st.sampled_from([0, 0, 1])
    parts = chunks_of(pixels)
    for _ in range(data.draw(st.integers(0, 2))):
        kind = data.draw(kinds)
        length = data.draw(st.sampled_from([0, 1, 3, LENGTHS.get(kind, 6)]))
        beside = chunk(kind, data.draw(st.binary(min_size=length, max_size=length)), data.draw(checks))
        parts.insert(data.draw(st.integers(1, len(parts))), beside)
    whole = bytearray(SIGNATURE + b"".join(parts))
    for place in data.draw(st.lists(st.integers(8, len(whole) - 1), max_size=2)):
        whole[place] ^= data.draw(st.integers(1, 255))
    given_bytes = bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole) // 2, 20]))])
    try:
        image, _ = read(given_bytes)
    except Exception:
        return
    assert np.array_equal(image, pixels), "read, and not as it was stored"


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("check", [0, 1])
def test_other_chunks_do_no_harm_whatever_they_hold(kind: bytes, check: int) -> None:
    image, _ = read(png(FIELD, chunk(kind, bytes(6), check)))
    assert np.array_equal(image, FIELD)


@pytest.mark.parametrize(
    "beside",
    [
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(np.random.default_rng(0).bytes(1_500_000))),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3_000_000)),
        chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)),
    ],
    ids=["profile", "packed text", "text", "xmp"],
)
def test_large_profiles_and_texts_are_no_damage(beside: bytes) -> None:
    image, notes = read(png(FIELD, beside))
    assert np.array_equal(image, FIELD) and notes == []


def test_half_the_rows_are_refused() -> None:
    height = len(FIELD)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), FIELD.reshape(height, -1)], axis=1)
    header, _, end = chunks_of(FIELD)
    half = chunk(b"IDAT", zlib.compress(rows[: height // 2].tobytes()))
    with pytest.raises(Exception, match="too short"):
        read(SIGNATURE + header + half + end)


@pytest.mark.parametrize("place", [0, 1])
def test_wrong_checksum_of_pixels_is_refused(place: int) -> None:
    parts = chunks_of(FIELD)
    parts[place] = parts[place][:-1] + bytes([parts[place][-1] ^ 1])
    assert "checksum" in refused(SIGNATURE + b"".join(parts))


def test_end_that_is_missing_is_noted_where_all_pixels_are_there() -> None:
    header, body, _ = chunks_of(FIELD)
    image, notes = read(SIGNATURE + header + body)
    assert np.array_equal(image, FIELD)
    assert notes == ["the end of the PNG is missing; all pixels are there"]
    assert "truncated" in refused(SIGNATURE + header + body[:-20])


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 1)])
def test_header_that_promises_more_than_the_file_holds_is_refused_before_decoding(
    width: int, height: int
) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = SIGNATURE + header + b"".join(chunks_of(FIELD)[1:])
    with pytest.raises(ImageError, match=r"cannot hold|too large"):
        decode(io.BytesIO(data), 400_000_000)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_depths_and_passes(depth: int, interlaced: int) -> None:
    # One row and one column: the passes of an interlaced image have the order of its pixels then.
    values = np.array([[0, 2**depth - 1]])
    bits = int(values[0, 1]) << (8 - 2 * depth) if depth < 8 else 0
    plain = bytes([0, bits]) if depth < 8 else bytes([0, 0, 255])
    passes = bytes([0, 0, 0, values[0, 1] << (8 - depth)])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, 0, 0, 0, interlaced))
    body = chunk(b"IDAT", zlib.compress(passes if interlaced else plain))
    image, _ = read(SIGNATURE + header + body + chunk(b"IEND", b""))
    assert image[0, :, 0].tolist() == [0, 255]


def test_chunk_before_the_header_is_refused(tmp_path: Path) -> None:
    header, body, end = chunks_of(FIELD)
    assert "header" in refused(SIGNATURE + chunk(b"tEXt", b"by\0a camera") + header + body + end)


def test_what_follows_the_pixels_is_not_read() -> None:
    stream = io.BytesIO(png(FIELD) + bytes(10_000_000))
    image, _ = decode(stream, 1 << 20)
    assert np.array_equal(image, FIELD)
    assert stream.tell() < 1_000_000


def test_a_frame_of_an_animation_is_noted() -> None:
    _, notes = read(png(FIELD, chunk(b"acTL", bytes(8))))
    assert notes == ["the first frame of an animation was read"]


def test_orientation_in_a_text_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    block = exif.tobytes()
    digits = "\n".join(block.hex()[at : at + 72] for at in range(0, 2 * len(block), 72))
    text = f"\nexif\n{len(block):8}\n{digits}\n".encode()
    profile = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    image, _ = read(png(FIELD, profile))
    assert np.array_equal(image, FIELD[::-1, ::-1])
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
    image, _ = read(png(FIELD, xmp))
    assert np.array_equal(image, np.rot90(FIELD, -1))


def test_orientation_that_follows_the_pixels_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    header, body, end = chunks_of(FIELD)
    turned = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(SIGNATURE + header + body + turned + end)
    smear = read_smear(tmp_path / "a.png")
    assert np.array_equal(smear.image, FIELD[::-1, ::-1]) and smear.notes == ()
