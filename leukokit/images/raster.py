"""JPEG, BMP and most PNG decoded by Pillow, WebP and plain PNG by imagecodecs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from leukokit.errors import ImageError
from leukokit.images.checks import AGAIN, check_size
from leukokit.images.depth import RGBImage, Samples, bands, flatten, note_transparency
from leukokit.images.metadata import DAMAGED_EXIF, PROCESS_WIDE, caught_warnings, orientation_of
from leukokit.images.png import decode_plain

if TYPE_CHECKING:
    from PIL import Image


def decode_png(stream: BinaryIO, head: bytes, max_pixels: int, notes: list[str]) -> tuple[RGBImage, object]:
    """RGB uint8 (H, W, 3) and the orientation of a PNG file whose first 32 bytes are ``head``.

    Raises:
        ImageError, Exception: see ``decode_pillow``.
    """
    if (image := decode_plain(stream, head, max_pixels)) is not None:
        return image, 1
    stream.seek(0)
    return decode_pillow(stream, head, max_pixels, notes)


def decode_pillow(
    stream: BinaryIO, head: bytes, max_pixels: int, notes: list[str]
) -> tuple[RGBImage, object]:
    """RGB uint8 (H, W, 3) and the orientation of a JPEG, PNG or BMP file whose first 32 bytes are ``head``.

    Raises:
        ImageError: it is too large, or has no pixels.  Exception: whatever Pillow makes of damaged bytes.
    """
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    # The classes themselves, because Image.open applies Pillow's own process-wide pixel limit.
    opener: Callable[[BinaryIO], Any] = BmpImagePlugin.BmpImageFile
    if head.startswith(b"\x89"):
        opener = PngImagePlugin.PngImageFile
    elif head.startswith(b"\xff"):
        opener = JpegImagePlugin.JpegImageFile
    with caught_warnings() as caught:
        picture = opener(stream)  # a JPEG's resolution is looked up in its EXIF at once
    if caught:
        notes.append(DAMAGED_EXIF)
    width, height = picture.size
    check_size(width, height, max_pixels)
    deep = head[24:26] if head.startswith(b"\x89") and head[24] == 16 else b""
    if deep == b"\x10\x04":
        # Grey and alpha of 16 bits have four bytes a pixel: taken for RGBA, none of them is dropped.
        _unpack_as(picture, "RGBA")
    _load_whole(picture)
    orientation = orientation_of(picture.getexif, notes)
    return (
        _deep_png(stream, picture, deep[1]).to_rgb(notes) if deep else _pillow_rgb(picture, notes)
    ), orientation


def _deep_png(stream: BinaryIO, picture: Any, colour_type: int) -> Samples:
    """All 16 bits of a PNG, of which Pillow keeps the upper 8: a 12-bit camera would be left with four.

    The lower bytes of colours come from reading the file once more as if they were the upper ones.
    """
    from PIL import PngImagePlugin

    width, height = picture.size
    key = picture.info.get("transparency")
    if picture.mode == "I;16":
        samples = np.empty((height, width, 1), np.uint16)
        for top, bottom, pixels in _pillow_bands(picture):
            samples[top:bottom, :, 0] = pixels
    elif colour_type == 4:
        samples = np.empty((height, width, 2), np.uint16)
        for top, bottom, pixels in _pillow_bands(picture):
            samples[top:bottom] = pixels[..., ::2].astype(np.uint16) << 8 | pixels[..., 1::2]
    else:
        samples = np.empty((height, width, len(picture.mode)), np.uint16)
        for top, bottom, pixels in _pillow_bands(picture):
            samples[top:bottom] = pixels
        samples <<= 8
        stream.seek(0)
        mode = picture.mode
        del picture
        with caught_warnings():
            lower: Any = PngImagePlugin.PngImageFile(stream)
        _unpack_as(lower, f"{mode};16L")
        _load_whole(lower)
        for top, bottom, pixels in _pillow_bands(lower):
            samples[top:bottom] |= pixels
    raster = Samples.of_channels(samples)
    if key is None:
        return raster
    seen = (samples != np.array(key, np.uint16)).any(axis=-1)
    return replace(raster, alpha=seen.view(np.uint8) * np.uint8(255))


def _unpack_as(picture: Any, raw_mode: str) -> None:
    """Have Pillow unpack the pixels of a picture not yet loaded in another of its raw modes."""
    picture.tile = [tile._replace(args=raw_mode) for tile in picture.tile]


def _load_whole(picture: Any) -> None:
    from PIL import ImageFile

    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        picture.load()
        return
    # Another library in this process has asked for half images; this one must not get any.
    with PROCESS_WIDE:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            picture.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _pillow_bands(picture: Any, mode: str = "") -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Top, bottom and pixels of each band of rows, converted to ``mode`` if one is given."""
    from PIL import Image

    width, height = picture.size
    for top, bottom in bands(height, width):
        # A 1:1 resize of a box is a crop to which Pillow's pixel limit does not apply.
        band = picture.resize((width, bottom - top), Image.Resampling.NEAREST, box=(0, top, width, bottom))
        yield top, bottom, np.asarray(band if mode in ("", band.mode) else band.convert(mode))


def _pillow_rgb(picture: Any, notes: list[str]) -> RGBImage:
    width, height = picture.size
    has_alpha = picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info
    mode = "RGBA" if has_alpha else "RGB"
    out = np.empty((height, width, 3), np.uint8)
    transparent = False
    for top, bottom, pixels in _pillow_bands(picture, mode):
        if has_alpha:
            transparent |= flatten(pixels[..., :3], pixels[..., 3], out[top:bottom])
        else:
            out[top:bottom] = pixels
    note_transparency(transparent, notes)
    return out


def decode_webp(stream: BinaryIO, max_pixels: int, notes: list[str]) -> tuple[RGBImage, object]:
    """RGB uint8 (H, W, 3) and the orientation of a WebP file.

    Raises:
        ImageError: it is too large, or has no header.  Exception: whatever the decoder makes of damage.
    """
    # Not by Pillow, which holds four canvases of four bytes a pixel while it decodes.
    import imagecodecs

    data = stream.read()
    width, height = _webp_size(data)
    check_size(width, height, max_pixels)
    image = Samples.of_channels(imagecodecs.webp_decode(data)).to_rgb(notes)
    return image, orientation_of(partial(_webp_exif, data), notes)


def _webp_exif(data: bytes) -> Image.Exif:
    from PIL import Image

    exif = Image.Exif()
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            exif.load(data[at + 8 : at + 8 + length])
            break
        at += 8 + length + length % 2
    return exif


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind, start = data[12:16], data[20:30]
    if len(start) == 10 and kind == b"VP8X":
        return int.from_bytes(start[4:7], "little") + 1, int.from_bytes(start[7:10], "little") + 1
    if len(start) == 10 and kind == b"VP8L":
        bits = int.from_bytes(start[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(start) == 10 and kind == b"VP8 ":
        return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF
    raise ImageError(f"is truncated or damaged (no WebP header); {AGAIN}")
