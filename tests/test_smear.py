"""Every format and mode comes out as the pixels that went in; every bad file as one clear line."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from leukokit.errors import ImageError
from leukokit.smear import Smear, read_image, read_smear

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

# name of the file, its writer, pixels to expect, tolerance, words in its notes
FORMATS: list[Any] = [
    pytest.param(name, write, np.asarray(expected, dtype=np.uint8), tolerance, words, id=identity)
    for identity, name, write, expected, tolerance, words in [
        ("jpeg", "a.jpg", pillow(FIELD, quality=95), FIELD, 12, ""),
        ("jpeg-progressive", "a.jpeg", pillow(FIELD, quality=95, progressive=True), FIELD, 12, ""),
        ("jpeg-grey", "a.jpg", pillow(GREY, quality=95), grey_rgb(GREY), 6, ""),
        ("jpeg-cmyk-inverted", "a.jpg", pillow(FIELD, "CMYK", quality=98), FIELD, 6, ""),
        ("png", "a.png", pillow(FIELD), FIELD, 0, ""),
        ("png-wrong-suffix", "a.jpg", raw(imagecodecs.png_encode(FIELD)), FIELD, 0, ""),
        ("png-grey", "a.png", pillow(GREY), grey_rgb(GREY), 0, ""),
        ("png-1-bit", "a.png", pillow(BLACK_WHITE.astype(np.uint8), "1"), grey_rgb(BLACK_WHITE), 0, ""),
        ("png-rgba", "a.png", pillow(with_channel(FIELD, ALPHA)), ON_WHITE, 1, "transparent"),
        ("png-rgba-opaque", "a.png", pillow(with_channel(FIELD, ALPHA * 0 + 255)), FIELD, 0, ""),
        ("png-la", "a.png", pillow(with_channel(GREY, ALPHA)), grey_rgb(GREY_ON_WHITE), 1, "transparent"),
        ("png-palette", "a.png", lambda p: PALETTED.save(p), PALETTED_RGB, 0, ""),
        (
            "png-palette-transparent",
            "a.png",
            lambda p: PALETTED.save(p, transparency=PALETTED.getpixel((0, 0))),
            np.where(CORNER, 255, PALETTED_RGB),
            0,
            "transparent",
        ),
        (
            "png-rgb-colour-key",
            "a.png",
            lambda p: Image.fromarray(FIELD).save(p, transparency=tuple(int(v) for v in FIELD[3, 3])),
            np.where((FIELD[3, 3] == FIELD).all(-1, keepdims=True), 255, FIELD),
            0,
            "transparent",
        ),
        ("png-16-bit", "a.png", raw(imagecodecs.png_encode(WIDE16)), FIELD, 0, "255/65535"),
        ("png-12-in-16-bit", "a.png", raw(imagecodecs.png_encode(WIDE12)), FIELD, 0, "255/4095"),
        ("png-grey-16-bit", "a.png", pillow(WIDE16[..., 1]), grey_rgb(GREY), 0, "255/65535"),
        (
            "png-rgba-16-bit",
            "a.png",
            raw(imagecodecs.png_encode(with_channel(WIDE16, ALPHA.astype(np.uint16) * 257))),
            ON_WHITE,
            1,
            "transparent",
        ),
        (
            "png-grey-16-bit-colour-key",
            "a.png",
            raw(png_with_colour_key(4095)),
            grey_rgb(np.array([[128] * 4, [255] * 4, [128] * 4])),
            0,
            "transparent",
        ),
        (
            "png-16-bit-colour-key",
            "a.png",
            raw(png_with_colour_key(2048, 2049, 4095)),
            grey_rgb(np.array([[128] * 4, [255] * 4, [128] * 4])),
            0,
            "transparent",
        ),
        (
            "png-la-12-in-16-bit",
            "a.png",
            raw(imagecodecs.png_encode(with_channel(WIDE12[..., 1], ALPHA.astype(np.uint16) * 257))),
            grey_rgb(np.round(WIDE12[..., 1] / 4095 * (ALPHA / 255) * 255 + 255 - ALPHA)),
            1,
            "255/4095",
        ),
        (
            "png-16-bit-with-odd-metadata",
            "a.png",
            raw(png_with_chunk(bytes(imagecodecs.png_encode(WIDE16)), b"iCCPx\0\0junk")),
            FIELD,
            0,
            "255/65535",
        ),
        ("bmp", "a.bmp", pillow(FIELD), FIELD, 0, ""),
        ("bmp-grey", "a.bmp", pillow(GREY), grey_rgb(GREY), 0, ""),
        ("bmp-palette", "a.bmp", lambda p: PALETTED.save(p), PALETTED_RGB, 0, ""),
        ("webp-lossless", "a.webp", pillow(FIELD, lossless=True), FIELD, 0, ""),
        ("webp", "a.webp", pillow(FIELD, quality=95), FIELD, 12, ""),
        (
            "webp-rgba",
            "a.webp",
            pillow(with_channel(FIELD, ALPHA), lossless=True, exact=True),
            ON_WHITE,
            1,
            "transparent",
        ),
        ("tiff", "a.tif", tiff(FIELD, photometric="rgb"), FIELD, 0, ""),
        ("tiff-big-endian", "a.tif", tiff(WIDE16, photometric="rgb", byteorder=">"), FIELD, 0, "255/65535"),
        ("tiff-bigtiff", "a.tiff", tiff(FIELD, photometric="rgb", bigtiff=True), FIELD, 0, ""),
        ("tiff-striped", "a.tif", tiff(FIELD, photometric="rgb", rowsperstrip=7), FIELD, 0, ""),
        ("tiff-tiled", "a.tif", tiff(FIELD, photometric="rgb", tile=(32, 32)), FIELD, 0, ""),
        (
            "tiff-lzw",
            "a.tif",
            tiff(FIELD, photometric="rgb", compression="lzw", predictor=True, rowsperstrip=9),
            FIELD,
            0,
            "",
        ),
        (
            "tiff-deflate-tiled-16-bit",
            "a.tif",
            tiff(WIDE16, photometric="rgb", compression="zlib", predictor=True, tile=(16, 32)),
            FIELD,
            0,
            "255/65535",
        ),
        (
            "tiff-jpeg",
            "a.tif",
            tiff(FIELD, photometric="rgb", compression="jpeg", compressionargs={"level": 95}),
            FIELD,
            12,
            "",
        ),
        (
            "tiff-jpeg-ycbcr-tiled",
            "a.tif",
            tiff(
                BIG,
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95},
                tile=(64, 64),
                subsampling=(2, 2),
            ),
            BIG,
            12,
            "",
        ),
        ("tiff-jpeg-libtiff", "a.tif", pillow(FIELD, compression="jpeg", quality=95), FIELD, 12, ""),
        ("tiff-ycbcr", "a.tif", tiff(YCBCR, photometric="ycbcr"), FIELD, 3, ""),
        ("tiff-cmyk", "a.tif", pillow(FIELD, "CMYK"), FIELD, 1, ""),
        (
            "tiff-planes-apart",
            "a.tif",
            tiff(np.moveaxis(FIELD, -1, 0).copy(), photometric="rgb", planarconfig="separate"),
            FIELD,
            0,
            "",
        ),
        ("tiff-grey", "a.tif", tiff(GREY), grey_rgb(GREY), 0, ""),
        ("tiff-white-is-zero", "a.tif", tiff(255 - GREY, photometric="miniswhite"), grey_rgb(GREY), 0, ""),
        (
            "tiff-1-bit-fax",
            "a.tif",
            pillow(BLACK_WHITE.astype(np.uint8), "1", compression="group4"),
            grey_rgb(BLACK_WHITE),
            0,
            "",
        ),
        ("tiff-palette", "a.tif", lambda p: PALETTED.save(p), PALETTED_RGB, 0, ""),
        (
            "tiff-rgba",
            "a.tif",
            tiff(with_channel(FIELD, ALPHA), photometric="rgb", extrasamples=["unassalpha"]),
            ON_WHITE,
            1,
            "transparent",
        ),
        (
            "tiff-rgba-premultiplied",
            "a.tif",
            tiff(
                with_channel(np.round(FIELD * (ALPHA / 255)[..., None]).astype(np.uint8), ALPHA),
                photometric="rgb",
                extrasamples=["assocalpha"],
            ),
            ON_WHITE,
            1,
            "transparent",
        ),
        ("tiff-10-in-16-bit", "a.tif", tiff(WIDE12 // 4, photometric="rgb"), FIELD, 0, "255/1023"),
        ("tiff-12-in-16-bit", "a.tif", tiff(WIDE12, photometric="rgb"), FIELD, 0, "255/4095"),
        (
            "tiff-12-bit-packed",
            "a.tif",
            packed_12_bit,
            np.full((3, 4, 3), 128),
            0,
            "12-bit values scaled by 255/4095",
        ),
        (
            "tiff-float",
            "a.tif",
            tiff((FIELD / 255).astype("f4"), photometric="rgb"),
            FIELD,
            0,
            "scaled by 255",
        ),
        ("tiff-float-255", "a.tif", tiff(FIELD.astype("f4"), photometric="rgb"), FIELD, 0, "255/255"),
        ("tiff-float-4095", "a.tif", tiff(WIDE12.astype("f8"), photometric="rgb"), FIELD, 0, "255/4095"),
        (
            "tiff-extra-channel",
            "a.tif",
            tiff(with_channel(FIELD, GREY), photometric="rgb", extrasamples=["unspecified"]),
            FIELD,
            0,
            "1 further channels ignored",
        ),
        (
            "tiff-pages",
            "a.tif",
            tiff(np.stack([FIELD, 255 - FIELD, FIELD]), photometric="rgb"),
            FIELD,
            0,
            "page 1 of 3 read",
        ),
    ]
]


@pytest.mark.parametrize(("name", "write", "expected", "tolerance", "words"), FORMATS)
def test_pixels_come_out_as_they_went_in(
    name: str,
    write: Callable[[Path], None],
    expected: RGB,
    tolerance: int,
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    write(path)
    smear = read_smear(path)
    assert capfd.readouterr() == ("", "")
    assert smear.image.dtype == np.uint8
    assert smear.image.flags.c_contiguous
    assert (smear.height, smear.width) == expected.shape[:2]
    assert np.abs(smear.image.astype(int) - expected).max() <= tolerance
    assert words in "; ".join(smear.notes)
    if not words:
        assert smear.notes == ()
    assert smear.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert smear.path == path
    assert np.array_equal(read_image(str(path)), smear.image)


@pytest.mark.parametrize("values", [{0, 4095}, {0, 900}, {0, 16000}, {0, 4096}])
def test_camera_depth_is_the_smallest_that_holds_the_values(values: set[int], tmp_path: Path) -> None:
    pixels = np.array([sorted(values)], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    full = {4095: 4095, 900: 1023, 16000: 16383, 4096: 16383}[max(values)]
    assert read_image(tmp_path / "a.tif")[0, 1, 0] == round(max(values) * 255 / full)


def test_black_16_bit_image_is_black(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 3), np.uint16))
    assert not read_image(tmp_path / "a.tif").any()


def test_float_image_with_negative_and_missing_values_is_stretched(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0, 1.0, np.nan, np.inf]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    smear = read_smear(tmp_path / "a.tif")
    assert smear.image[0, :, 0].tolist() == [0, 128, 255, 0, 255]
    assert "stretched from -1..1" in smear.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.png"])
def test_orientation_is_applied(name: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, FIELD, photometric="rgb", extratags=[(ORIENTATION, 3, 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        stored = Image.fromarray(WIDE16[..., 1] if name == "deep.png" else FIELD)
        stored.save(path, exif=exif, **options)
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    upright = Image.fromarray(grey_rgb(GREY) if name == "deep.png" else FIELD)
    expected = np.asarray(upright.transpose(method) if method is not None else upright)
    image = read_image(path)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= (25 if name == "a.jpg" else 0)
    assert image.flags.c_contiguous


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"])
def test_damaged_exif_is_noted_and_harms_nothing(
    name: str, exif: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(FIELD).save(tmp_path / name, exif=exif, quality=95)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        smear = read_smear(tmp_path / name)
    assert np.abs(smear.image.astype(int) - FIELD).max() <= 12
    noted = {("unreadable EXIF ignored",), ("damaged EXIF used as far as it goes",)}
    # Pillow itself has met, and forgotten, a JPEG's EXIF that is none at all.
    assert smear.notes in (noted | {()} if name == "a.jpg" and b"nonsense" in exif else noted)
    assert caught == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["Blutausstrich Grün.png", "血液 ほうまつ.jpg", "мазок.tif", "a\nb.bmp"])
def test_any_name_is_read(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "Ärzte"
    folder.mkdir()
    Image.fromarray(FIELD).save(folder / name)
    assert read_image(folder / name).shape == FIELD.shape


# --- errors ---------------------------------------------------------------------------------------


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
    assert "no photograph" in refusal(tmp_path / "b.tif")


# --- conduct --------------------------------------------------------------------------------------


def test_nothing_reaches_the_terminal_and_tifffile_speaks_up_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(SAMPLES["lzw"])
    ifd = struct.unpack_from("<I", data, 4)[0]
    next_page = ifd + 2 + 12 * struct.unpack_from("<H", data, ifd)[0]
    struct.pack_into("<I", data, next_page, len(data) + 1000)
    (tmp_path / "a.tif").write_bytes(data)
    assert read_image(tmp_path / "a.tif").shape == (60, 80, 3)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff_file:
        len(tiff_file.pages)
    assert "invalid" in caplog.text


def test_files_are_closed(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files are counted in /proc, which is not here")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for kind, data in SAMPLES.items():
        for name, content in ((f"{kind}.a", data), (f"{kind}.b", data[: len(data) // 2])):
            (tmp_path / name).write_bytes(content)
            with suppress(ImageError):
                read_smear(tmp_path / name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_threads_read_alike_and_leave_the_warning_filters(tmp_path: Path) -> None:
    filters = list(warnings.filters)
    for kind, data in SAMPLES.items():
        (tmp_path / kind).write_bytes(data)
    expected = {kind: read_image(tmp_path / kind) for kind in SAMPLES}
    differing: list[str] = []

    def read_all() -> None:
        for _ in range(5):
            differing.extend(k for k in SAMPLES if not np.array_equal(read_image(tmp_path / k), expected[k]))

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []
    assert list(warnings.filters) == filters


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_memory_stays_at_two_copies(kind: str, tmp_path: Path) -> None:
    """A field of 36 megapixels (108 MB) takes less than 2.4 times its size while it is read."""
    pytest.importorskip("resource", reason="memory is measured by the resource module, which is not here")
    path = tmp_path / "large"
    options: dict[str, Any] = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    Image.new("RGB", (6000, 6000), (200, 150, 180)).save(path, kind, **options)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from leukokit.smear import read_smear\n"
        "small, large = sys.argv[1:]\n"
        "read_smear(small)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_smear(large).width == 6000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "assert not {'torch', 'cv2', 'scipy'} & set(sys.modules)\n"
    )
    small = tmp_path / "small"
    small.write_bytes(SAMPLES["jpg" if kind == "JPEG" else "lzw"])
    run = subprocess.run(
        [sys.executable, "-c", code, str(small), str(path)], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 2.4 * 6000 * 6000 * 3 + 16e6


# --- arrays ---------------------------------------------------------------------------------------


def test_smear_from_an_array() -> None:
    smear = Smear.from_array(FIELD, Path("made.png"))
    assert (smear.width, smear.height) == (70, 48)
    assert smear.path == Path("made.png")
    assert smear.sha256 == hashlib.sha256(FIELD.tobytes()).hexdigest()
    turned = Smear.from_array(FIELD.transpose(1, 0, 2))
    assert turned.image.flags.c_contiguous
    assert turned.sha256 == hashlib.sha256(FIELD.transpose(1, 0, 2).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (FIELD / 255, "float64"),
        (GREY, r"\(48, 70\)"),
        (with_channel(FIELD, ALPHA), r"\(48, 70, 4\)"),
        (FIELD[:0], "at least one pixel"),
        ([[1, 2, 3]], "list"),
    ],
)
def test_wrong_arrays_are_refused(image: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        Smear.from_array(image)


# --- whatever comes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("fuzz") / "a.img"


def reads_or_refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        smear = read_smear(path, max_pixels=100_000)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert smear.image.ndim == 3
        assert 0 < smear.width * smear.height <= 100_000


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
MAGIC = [b"", b"II*\0", b"MM\0+", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\x20\0\0\0WEBPVP8L"]


@FUZZ
@given(magic=st.sampled_from(MAGIC), data=st.binary(max_size=300))
@example(magic=b"BM", data=b"")
def test_random_bytes(scratch: Path, magic: bytes, data: bytes) -> None:
    reads_or_refuses(scratch, magic + data)


@FUZZ
@given(kind=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_mutated_images(scratch: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray(SAMPLES[kind])
    # Headers, and a TIFF's directory at its end, are where a changed byte matters.
    near_an_end = st.integers(0, 250).flatmap(lambda at: st.sampled_from([at, len(content) - 1 - at]))
    places = st.one_of(near_an_end, st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        content[place] = value
    kept = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    reads_or_refuses(scratch, bytes(content[:kept]))
