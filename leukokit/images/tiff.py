"""TIFF and BigTIFF, striped or tiled, decoded by tifffile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from leukokit.errors import ImageError
from leukokit.images.checks import AGAIN, check_size
from leukokit.images.depth import RGBImage, Samples
from leukokit.images.metadata import ORIENTATION, caught_warnings

if TYPE_CHECKING:
    from tifffile import TiffPage

_TIFF_READING = threading.local()


def decode_tiff(stream: BinaryIO, max_pixels: int, notes: list[str]) -> tuple[RGBImage, object]:
    """RGB uint8 (H, W, 3) and the orientation of the first page of a TIFF file.

    Raises:
        ImageError: too large, no photograph, of unsupported colours or compression, or parts are missing.
        Exception: whatever tifffile makes of damaged bytes.
    """
    import tifffile

    size = stream.seek(0, 2)
    stream.seek(0)
    with _quiet_tifffile():
        with caught_warnings():
            tiff = tifffile.TiffFile(stream)
        with tiff:
            with caught_warnings():
                pages = len(tiff.pages)
                page = tiff.pages[0].aspage()
                _check(page, size, max_pixels)
            if pages > 1:
                notes.append(f"page 1 of {pages} read")
            samples = page.asarray(squeeze=False, buffersize=1 << 26)
            raster = _meaning_of(page, samples, notes)
            return raster.to_rgb(notes), page.tags.valueof(ORIENTATION, 1)


def _check(page: TiffPage, size: int, max_pixels: int) -> None:
    from tifffile import TIFF

    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.imagedepth > 1:
        raise ImageError(f"is a volume of {page.imagedepth} planes; export one plane")
    if page.dtype is None or page.dtype.kind not in "buif" or page.samplesperpixel > 8:
        raise ImageError(
            f"has {page.samplesperpixel} channels of type {page.dtype}, no photograph; export it as RGB"
        )
    if page.compression != 1 and page.compression not in TIFF.DECOMPRESSORS:
        raise ImageError(
            f"has the unsupported TIFF compression {int(page.compression)}; save it uncompressed or with LZW"
        )
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, 1 << 24):
        raise ImageError(f"has tiles of {page.tilewidth} x {page.tilelength} pixels; {AGAIN}")
    # Segments that are missing would be filled with black without a word.
    wanted = int(np.prod(page.chunked, dtype=np.int64))
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:wanted]
    whole = sum(offset > 0 and count > 0 and offset + count <= size for offset, count in spans)
    if page.is_contiguous and page.dataoffsets[0] + page.nbytes > size:
        whole = min(whole, wanted - 1)
    if whole < wanted:
        parts = "tiles" if page.is_tiled else "strips"
        raise ImageError(f"is truncated: {wanted - whole} of its {wanted} {parts} are missing; {AGAIN}")


def _meaning_of(page: TiffPage, samples: npt.NDArray[Any], notes: list[str]) -> Samples:
    """Say what the samples, (separate, 1, H, W, contiguous), mean."""
    channels = np.moveaxis(samples[:, 0, :, :, 0], 0, -1) if page.planarconfig == 2 else samples[0, 0]
    count = channels.shape[-1]
    photometric, colours, kind = int(page.photometric), 1, "grey"
    palette = None
    if photometric in (0, 1) and count == 3:
        notes.append("three unnamed channels taken for red, green and blue")
        colours, kind = 3, "rgb"
    elif photometric == 3:
        if page.colormap is None:
            raise ImageError(f"is a palette image without its palette; {AGAIN}")
        palette = (page.colormap >> 8 if page.colormap.max() > 255 else page.colormap).T.astype(np.uint8)
    elif photometric == 2 or (photometric == 6 and page.compression in (6, 7)):
        colours, kind = 3, "rgb"  # the JPEG decoder has turned YCbCr into RGB
    elif photometric in (5, 6) and channels.dtype.kind in "bu":
        colours, kind = (4, "cmyk") if photometric == 5 else (3, "ycbcr")
    elif photometric not in (0, 1):
        name = getattr(page.photometric, "name", photometric)
        raise ImageError(f"has unsupported TIFF colours ({name}); export it as RGB")
    if count < colours:
        raise ImageError(f"has {count} channels where its colours need {colours}; {AGAIN}")
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
    )


class _DropWhileReading(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_TIFF_READING, "active", False)


_DROP = _DropWhileReading()


@contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's log of a damaged file off the terminal, for this thread's reading alone."""
    logging.getLogger("tifffile").addFilter(_DROP)
    _TIFF_READING.active = True
    try:
        yield
    finally:
        _TIFF_READING.active = False
