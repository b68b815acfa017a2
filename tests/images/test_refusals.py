"""Every bad file is one clear line."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from encoded import (
    FIELD,
    SAMPLES,
    make_field,
    refusal,
)
from PIL import Image, ImageFile

from leukokit.errors import ImageError
from leukokit.smear import read_image, read_smear


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none\nthere.png")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"x", b"II*", b"%PDF-1.7 ...", b"<svg/>", b"GIF89a", bytes(500)])
def test_not_an_image(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    assert "is not an image of a known kind" in refusal(tmp_path / "a.jpg")


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "a.png")
    assert "a device or a pipe" in refusal(tmp_path / "a.png")


def test_link_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    assert "cannot be read" in refusal(tmp_path / "a.png")


def test_impossible_names(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="null"):
        read_smear("a\0b.png")
    assert "cannot be read" in refusal(tmp_path / ("a" * 300 + ".png"))


def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(FIELD).save(path)
    path.chmod(0)
    if os.name != "posix":
        pytest.skip("permissions are not POSIX's here")
    is_root = os.geteuid() == 0
    if is_root:  # root reads everything: be somebody else for a moment
        os.seteuid(65534)
    try:
        assert "permission denied" in refusal(path)
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(0o600)


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_file_is_never_half_an_image(kind: str, kept: float, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(SAMPLES[kind][: int(kept * len(SAMPLES[kind]))])
    assert "truncated" in refusal(tmp_path / "a")


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 8}, {"tile": (32, 32), "compression": "zlib"}])
def test_tiff_that_ends_within_its_pixels(options: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", make_field(64, 96), photometric="rgb", **options)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-5])
    assert "are missing" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_half_images_are_refused_even_if_another_library_asked_for_them(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "a").write_bytes(SAMPLES[kind][: len(SAMPLES[kind]) * 2 // 3])
    assert "truncated" in refusal(tmp_path / "a")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_flipped_bits_in_a_png_are_noticed(tmp_path: Path) -> None:
    data = bytearray(SAMPLES["png"])
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    assert "damaged" in refusal(tmp_path / "a.png")


def bomb_png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [header, body, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp", "tif", "png16"])
def test_limit_of_pixels_holds_for_every_format(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(SAMPLES[kind])
    image = read_image(tmp_path / "a")
    count = image.shape[0] * image.shape[1]
    message = refusal(tmp_path / "a", max_pixels=count - 1)
    assert f"{image.shape[1]} x {image.shape[0]} = {count:,}" in message
    assert f"the limit is {count - 1:,}" in message
    assert read_smear(tmp_path / "a", max_pixels=count).width == image.shape[1]


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bomb_png(60_000, 60_000))
    assert "3,600,000,000 pixels, the limit is 400,000,000" in refusal(tmp_path / "a.png")


def test_image_without_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bomb_png(0, 5))
    assert "has no pixels" in refusal(tmp_path / "a.png") or "damaged" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp", "tif"])
@pytest.mark.parametrize("limit", [10, None])
def test_pillows_own_limit_neither_matters_nor_changes(
    kind: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    (tmp_path / "a").write_bytes(SAMPLES[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a").shape == (60, 80, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def patched_tiff(data: bytes, tag: int, value: int) -> bytes:
    """The little-endian TIFF with the value of a SHORT or LONG tag of its first page replaced."""
    assert data.startswith(b"II*\0")
    changed = bytearray(data)
    ifd = struct.unpack_from("<I", data, 4)[0]
    for at in range(ifd + 2, ifd + 2 + 12 * struct.unpack_from("<H", data, ifd)[0], 12):
        found, kind = struct.unpack_from("<HH", data, at)
        if found == tag:
            struct.pack_into("<I" if kind == 4 else "<H", changed, at + 8, value)
            return bytes(changed)
    raise AssertionError(f"no tag {tag}")


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        (259, 60001, "unsupported TIFF compression 60001"),
        (262, 8, "unsupported TIFF colours (CIELAB)"),
        (257, 0, "has no pixels"),
        (257, 70, "are missing"),
    ],
)
def test_tiff_of_a_kind_that_cannot_be_read(tag: int, value: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(patched_tiff(SAMPLES["tif"], tag, value))
    assert words in refusal(tmp_path / "a.tif")


def test_volume_and_complex_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))
    assert "volume of 16 planes" in refusal(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((8, 8), np.complex64))
    assert "not a photograph" in refusal(tmp_path / "b.tif")
