"""Half images are errors: what a lenient decoder fills in would be counted as a field without cells there."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from encoded import refusal
from PIL import Image

from leukokit.smear import read_header, read_image, read_smear
from leukokit.synthetic.smear import draw_smear

FIELD = draw_smear(3, 480, 360, 2, 40.0).image


def jpeg(**options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(FIELD).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


END = b"\xff\xd9"
BASELINE, PROGRESSIVE, RESTARTS = jpeg(), jpeg(progressive=True), jpeg(restart_marker_rows=1)


def cut_and_closed(data: bytes) -> bytes:
    return data[: len(data) // 2] + END


def with_zeroed_sector(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(4096) + data[middle + 4096 :]


def with_zeroed_tail(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2 - 2) + END


def with_doubled_height(data: bytes) -> bytes:
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data) + 5
    return data[:at] + struct.pack(">H", 2 * FIELD.shape[0]) + data[at + 2 :]


@pytest.mark.parametrize("whole", [BASELINE, PROGRESSIVE, RESTARTS], ids=["plain", "progressive", "restarts"])
@pytest.mark.parametrize(
    "damage", [cut_and_closed, with_zeroed_sector, with_zeroed_tail, with_doubled_height]
)
def test_damaged_jpeg_is_refused(whole: bytes, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert read_smear(tmp_path / "whole.jpg").notes == ()
    (tmp_path / "a.jpg").write_bytes(damage(whole))
    assert "is truncated or damaged" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("whole", [BASELINE, PROGRESSIVE])
def test_jpeg_without_its_last_marker_is_read(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(whole[:-2])
    (tmp_path / "b.jpg").write_bytes(whole + bytes(4096))
    smear = read_smear(tmp_path / "a.jpg")
    assert smear.notes == ("the end marker of the JPEG is missing; all pixels are there",)
    assert np.array_equal(smear.image, np.asarray(Image.open(io.BytesIO(whole))))
    assert read_smear(tmp_path / "b.jpg").notes == ()


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_pixels_of_a_jpeg_are_pillows(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(**options))
    assert np.array_equal(read_image(tmp_path / "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_jpeg_of_12_bits(tmp_path: Path) -> None:
    deep = FIELD.astype(np.uint16) << 4
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(deep, bitspersample=12, level=95))
    smear = read_smear(tmp_path / "a.jpg")
    assert np.abs(smear.image.astype(int) - FIELD).mean() < 4
    assert smear.notes == ("12-bit values scaled by 255/4095",)


def test_jpeg_of_very_many_scans_is_refused_at_once(tmp_path: Path) -> None:
    scan = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(PROGRESSIVE[:-2] + 2000 * scan + END)
    assert "scans" in refusal(tmp_path / "a.jpg")


def test_multi_picture_jpeg_gives_its_first_picture(tmp_path: Path) -> None:
    picture = Image.fromarray(FIELD)
    picture.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[picture.resize((160, 120))])
    smear = read_smear(tmp_path / "a.mpo")
    assert smear.image.shape == FIELD.shape
    assert smear.notes == ("the first picture of a multi-picture JPEG was read",)


@pytest.mark.parametrize("options", [{"rowsperstrip": 64}, {"tile": (128, 128)}])
def test_tiff_with_a_damaged_jpeg_strip_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FIELD, photometric="rgb", compression="jpeg", **options)
    read_smear(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[1], page.databytecounts[1]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    (tmp_path / "a.tif").write_bytes(data)
    assert "is truncated or damaged" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
def test_tiff_strip_with_too_few_bytes_is_refused(compression: str | None, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FIELD, photometric="rgb", compression=compression, rowsperstrip=60)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tag = tiff.pages.first.tags["StripByteCounts"]
        at, size, counts = tag.valueoffset, {3: 2, 4: 4}[int(tag.dtype)], list(tag.value)
    counts[2] //= 3
    data[at : at + size * len(counts)] = struct.pack(f"<{len(counts)}{'H' if size == 2 else 'I'}", *counts)
    (tmp_path / "a.tif").write_bytes(data)
    refusal(tmp_path / "a.tif")


def test_small_bmp_that_promises_gigabytes_is_refused_before_decoding(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(FIELD[:4, :4]).save(stream, "BMP")
    head = bytearray(stream.getvalue()[:100])
    head[18:26] = struct.pack("<ii", 20_000, 19_999)
    for compression in (0, 1):
        head[30:34] = struct.pack("<I", compression)
        if compression:
            head[28:30] = struct.pack("<H", 8)
        (tmp_path / "a.bmp").write_bytes(head)
        refusal(tmp_path / "a.bmp")


def test_small_jpeg_that_promises_gigabytes_is_refused_before_decoding(tmp_path: Path) -> None:
    at = BASELINE.index(b"\xff\xc0") + 5
    data = BASELINE[:at] + struct.pack(">HH", 19_999, 20_000) + BASELINE[at + 4 :]
    (tmp_path / "a.jpg").write_bytes(data)
    assert "cannot hold" in refusal(tmp_path / "a.jpg")


def test_plain_images_of_their_formats_fit_what_their_files_can_hold(tmp_path: Path) -> None:
    """A uniform image is the smallest file of its size that an encoder writes: none of them is refused."""
    plain = Image.new("RGB", (6000, 5000), (210, 180, 190))
    formats: dict[str, dict[str, Any]] = {
        "a.jpg": {},
        "b.jpg": {"progressive": True, "optimize": True, "quality": 5},
        "a.png": {"optimize": True},
        "a.webp": {"lossless": True},
        "a.bmp": {},
    }
    for name, options in formats.items():
        plain.save(tmp_path / name, **options)
        header = read_header(tmp_path / name)
        assert (header.width, header.height) == plain.size
        assert read_image(tmp_path / name).shape == (5000, 6000, 3)
    plain.quantize(2).save(tmp_path / "palette.bmp")
    assert read_image(tmp_path / "palette.bmp").shape == (5000, 6000, 3)


@pytest.mark.parametrize("cut", [1, 100])
def test_webp_shorter_than_its_header_says(cut: int, tmp_path: Path) -> None:
    Image.fromarray(FIELD).save(tmp_path / "a.webp", lossless=True)
    data = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(data[: -cut - len(data) % 2])
    assert "truncated" in refusal(tmp_path / "a.webp")
