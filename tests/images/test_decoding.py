"""Every format and mode comes out as the pixels that went in."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from encoded import (
    ALPHA,
    BIG,
    BLACK_WHITE,
    CORNER,
    FIELD,
    GREY,
    GREY_ON_WHITE,
    ON_WHITE,
    ORIENTATION,
    PALETTED,
    PALETTED_RGB,
    RGB,
    WIDE12,
    WIDE16,
    YCBCR,
    grey_rgb,
    packed_12_bit,
    pillow,
    png_with_chunk,
    png_with_colour_key,
    raw,
    tiff,
    with_channel,
)
from PIL import Image

from leukokit.smear import read_image, read_smear

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
    noted = {("unreadable EXIF ignored",), ("damaged EXIF used as far as possible",)}
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
