"""TIFF and BigTIFF, striped or tiled, decoded by tifffile."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from leukokit.errors import ImageError
from leukokit.images.checks import REMEDY, check_room, check_size
from leukokit.images.depth import Samples
from leukokit.images.encoded import EncodedImage
from leukokit.images.jpeg import decode_strictly
from leukokit.images.metadata import ORIENTATION, capture_warnings
from leukokit.images.pixels import RGBImage
from leukokit.images.tiff_planes import Planes, choose_planes

if TYPE_CHECKING:
    from tifffile import TiffPage

MAX_SAMPLE_VALUE: Final = (341, 281)
"""Tags for the value of white: SMaxSampleValue and MaxSampleValue."""
_READING = threading.local()


def open_tiff(stream: BinaryIO, max_pixels: int, notes: list[str]) -> EncodedImage:
    """Read the directory of a TIFF file, and choose the page or planes to read.

    Raises:
        ImageError: too large, not a photograph, of unsupported colours or compression, or parts are missing.
        Exception: whatever tifffile makes of damaged bytes.
    """
    import tifffile

    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    with _quiet_tifffile(), capture_warnings():
        tiff = tifffile.TiffFile(stream)
        planes = choose_planes(tiff, notes)
        page = planes.page
        for other in planes.pages:
            _check_page(other, size, max_pixels)
    pixels = page.imagewidth * page.imagelength
    return EncodedImage(
        page.imagewidth,
        page.imagelength,
        page.tags.valueof(ORIENTATION, 1),
        size + int(page.nbytes) * planes.count + 3 * pixels,
        partial(_decode_tiff, stream, planes, notes),
    )


def _decode_tiff(stream: BinaryIO, planes: Planes, notes: list[str]) -> RGBImage:
    with _quiet_tifffile():
        if planes.count == 1:
            _check_jpeg(stream, planes.page)
            samples = planes.page.asarray(squeeze=False, buffersize=1 << 26)
            return _meaning_of(planes.page, samples, notes).to_rgb(notes)
        stack = np.stack([planes.read(stream, number) for number in range(3)], axis=-1)
    colours = Samples(
        stack,
        "rgb",
        inverted=int(planes.page.photometric) == 0,
        bits=int(planes.page.bitspersample),
        white=_white(planes.page),
    )
    return colours.to_rgb(notes)


def _check_page(page: TiffPage, size: int, max_pixels: int) -> None:
    from tifffile import TIFF

    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.imagedepth > 1:
        raise ImageError(f"is a volume of {page.imagedepth} planes; export one plane")
    if page.dtype is None or page.dtype.kind not in "buif" or page.samplesperpixel > 8:
        raise ImageError(
            f"has {page.samplesperpixel} channels of type {page.dtype}, not a photograph; export it as RGB"
        )
    if page.compression != 1 and page.compression not in TIFF.DECOMPRESSORS:
        raise ImageError(
            f"has the unsupported TIFF compression {int(page.compression)}; save it uncompressed or with LZW"
        )
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, 1 << 24):
        raise ImageError(f"has tiles of {page.tilewidth} x {page.tilelength} pixels; {REMEDY}")
    _check_segments(page, size)


def _check_segments(page: TiffPage, size: int) -> None:
    # tifffile would fill segments that are missing with black, without a word.
    wanted = int(np.prod(page.chunked, dtype=np.int64))
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:wanted]
    whole = sum(offset > 0 and count > 0 and offset + count <= size for offset, count in spans)
    if page.is_contiguous and page.dataoffsets[0] + page.nbytes > size:
        whole = min(whole, wanted - 1)
    if whole < wanted:
        parts = "tiles" if page.is_tiled else "strips"
        raise ImageError(f"is truncated: {wanted - whole} of its {wanted} {parts} are missing; {REMEDY}")
    if page.compression == 1 and isinstance(page.bitspersample, int) and not page.is_tiled:
        needed = page.imagelength * (page.imagewidth * page.samplesperpixel * page.bitspersample // 8)
        check_room(page.imagewidth, page.imagelength, needed, sum(count for _, count in spans))


def _check_jpeg(stream: BinaryIO, page: TiffPage) -> None:
    """Decode JPEG segments of 8 bits strictly, reduced: tifffile's own decoder fills in what is lost.

    Raises:
        ImageError: a segment is damaged.
    """
    if page.compression != 7 or page.bitspersample != 8:
        return
    tables = page.jpegtables[2:-2] if page.jpegtables else b""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        stream.seek(offset)
        segment = stream.read(count)
        if segment.startswith(b"\xff\xd8"):
            decode_strictly(segment[:2] + tables + segment[2:], "GRAY", [], reduced=True)


def _white(page: TiffPage) -> float | None:
    for tag in MAX_SAMPLE_VALUE:
        value = page.tags.valueof(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, int | float) and np.isfinite(value) and value > 0:
            return float(value)
    return None


def _meaning_of(page: TiffPage, samples: npt.NDArray[Any], notes: list[str]) -> Samples:
    """Say what the samples, (separate, 1, H, W, contiguous), mean."""
    channels = np.moveaxis(samples[:, 0, :, :, 0], 0, -1) if page.planarconfig == 2 else samples[0, 0]
    count = channels.shape[-1]
    photometric, colours, kind = int(page.photometric), 1, "grey"
    palette = None
    if photometric in (0, 1) and count in (3, 4):
        name = "three" if count == 3 else "the first three of four"
        notes.append(f"{name} unnamed channels taken for red, green and blue")
        colours, kind = 3, "rgb"
    elif photometric == 3:
        if page.colormap is None:
            raise ImageError(f"is a palette image without its palette; {REMEDY}")
        palette = (page.colormap >> 8 if page.colormap.max() > 255 else page.colormap).T.astype(np.uint8)
    elif photometric == 2 or (photometric == 6 and page.compression in (6, 7)):
        colours, kind = 3, "rgb"  # the JPEG decoder has turned YCbCr into RGB
    elif photometric in (5, 6) and channels.dtype.kind in "bu":
        colours, kind = (4, "cmyk") if photometric == 5 else (3, "ycbcr")
    elif photometric not in (0, 1):
        colour_space = getattr(page.photometric, "name", str(photometric))
        raise ImageError(f"has unsupported TIFF colours ({colour_space}); export it as RGB")
    if count < colours:
        raise ImageError(f"has {count} channels where its colours need {colours}; {REMEDY}")
    extra = [int(sample) for sample in page.extrasamples][: count - colours]
    alpha = extra[0] if extra and extra[0] in (1, 2) else 0
    if count - colours > bool(alpha):
        notes.append(f"{count - colours - bool(alpha)} further channels ignored")
    return Samples(
        colours=channels[..., :colours],
        kind=kind,
        alpha=channels[..., colours] if alpha else None,
        premultiplied=alpha == 1,
        inverted=photometric == 0,
        bits=page.bitspersample if isinstance(page.bitspersample, int) else 8 * channels.dtype.itemsize,
        palette=palette,
        white=_white(page),
    )


class _DropWhileReading(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_READING, "active", False)


_DROP = _DropWhileReading()


@contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's log of a damaged file off the terminal, for this thread's reading alone."""
    logging.getLogger("tifffile").addFilter(_DROP)
    _READING.active = True
    try:
        yield
    finally:
        _READING.active = False
