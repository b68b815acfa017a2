"""Which page of a TIFF file is read, or which three of its planes are red, green and blue.

Microscope software stores one colour photograph in several ways: as a page of RGB; as three grey planes (an
ImageJ composite, OME-TIFF with the axes CYX, arrays of the shape (3, H, W)); as a page beside its own
thumbnail or reduced copies; as a plane of a stack in depth or time. Whatever is not read is a note.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from leukokit.errors import ImageError
from leukokit.images.checks import REMEDY

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

CORRELATION: Final = 0.5
"""Smallest correlation of planes without a name that are taken for the colours of one photograph."""
_REDUCED: Final = 1
"""Bit of the tag NewSubfileType for a reduced copy."""


@dataclass(frozen=True, slots=True)
class Planes:
    """The page that is read, or the three that are red, green and blue.

    Attributes:
        page: the page, or the first of the planes.
        pages: all pages that are read; one where further planes follow the first without a page.
        count: 1 for a page, 3 for planes.
    """

    page: TiffPage
    pages: tuple[TiffPage, ...]
    count: int = 1

    def read(self, stream: BinaryIO, number: int) -> npt.NDArray[Any]:
        """Return plane ``number`` of the three, (H, W)."""
        if len(self.pages) == self.count:
            plane = self.pages[number].asarray(squeeze=False, buffersize=1 << 26)
            return np.asarray(plane[0, 0, :, :, 0])
        page, size = self.page, self.page.nbytes
        stream.seek(page.dataoffsets[0] + number * size)
        data = stream.read(size)
        if len(data) < size:
            raise ImageError(f"is truncated: plane {number + 1} of 3 is missing; {REMEDY}")
        assert page.dtype is not None
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        return np.frombuffer(data, dtype).reshape(page.imagelength, page.imagewidth)


def choose_planes(tiff: TiffFile, notes: list[str]) -> Planes:
    """Choose what to read; what is left out becomes a note.

    Raises:
        Exception: whatever tifffile makes of damaged bytes.
    """
    series = _main_series(tiff, notes)
    if series is None:
        return _first_page(tiff, notes)
    page = series.keyframe.aspage()
    extents = dict(zip(series.axes, series.shape, strict=True))
    planes = {axis: extent for axis, extent in extents.items() if axis not in "YXS" and extent > 1}
    # Planes within a page are its channels.
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        planes = {axis: extent for axis, extent in planes.items() if axis != "S" and axis not in "C"}
    if not planes:
        return Planes(page, (page,))
    colours = _colour_axis(series, page, planes)
    others = {axis: extent for axis, extent in planes.items() if axis != colours}
    if others:
        notes.append(f"{_list_planes(others)} read")
    if not colours:
        return Planes(page, (page,))
    if planes[colours] == 4:
        notes.append("the first three of four planes taken for red, green and blue")
    else:
        notes.append("three grey planes taken for red, green and blue")
    step = _step(series, colours)
    found = [series.pages[number * step] for number in range(3)] if len(series.pages) > 2 * step else []
    pages = tuple(plane.aspage() for plane in found if plane is not None)
    return Planes(page, pages if len(pages) == 3 else (page,), 3)


def _first_page(tiff: TiffFile, notes: list[str]) -> Planes:
    count = len(tiff.pages)
    page = tiff.pages[0].aspage()
    if count > 1:
        notes.append(f"page 1 of {count} read")
    return Planes(page, (page,))


def _main_series(tiff: TiffFile, notes: list[str]) -> TiffPageSeries | None:
    """The series of the photograph: the first, unless that is a thumbnail or a reduced copy of another."""
    try:
        candidates = list(tiff.series)
        for series in tiff.series:
            candidates += list(series.levels[1:])
    except Exception:  # what the pages say of each other is wrong; the first may still be whole
        return None
    if not candidates:
        return None
    first = candidates[0]
    if not _is_reduced(first):
        chosen = first
    else:
        whole = [series for series in candidates if not _is_reduced(series)] or candidates
        chosen = max(whole, key=lambda series: series.keyframe.imagewidth * series.keyframe.imagelength)
        notes.append("a thumbnail before the image was skipped")
    further = [series for series in tiff.series if series is not chosen and not _is_reduced(series)]
    if further and chosen in tiff.series:
        place = tiff.series.index(chosen) + 1
        notes.append(f"page {place} of {len(tiff.series)} read; the others are separate images")
    return chosen


def _is_reduced(series: TiffPageSeries) -> bool:
    return bool(int(series.keyframe.subfiletype) & _REDUCED)


def _colour_axis(series: TiffPageSeries, page: TiffPage, planes: dict[str, int]) -> str:
    """The axis along which three or four grey planes are the colours of one photograph; empty for none."""
    if page.samplesperpixel > 1 or int(page.photometric) not in (0, 1) or page.dtype is None:
        return ""
    if planes.get("C") in (3, 4):
        return "C"
    unnamed = [axis for axis in planes if axis in "QI"]
    if len(planes) == 1 and unnamed and planes[unnamed[0]] == 3 and _are_alike(series):
        return unnamed[0]
    return ""


def _are_alike(series: TiffPageSeries) -> bool:
    """Whether three planes correlate as the colours of one photograph do, on a reduced copy."""
    try:
        stack = series.asarray(maxworkers=1) if series.nbytes < 1 << 28 else None
    except Exception:  # the planes are read again, and what is wrong with them is reported then
        return True
    if stack is None:
        return True
    planes = stack.reshape(3, *stack.shape[-2:])
    step = max(1, max(planes.shape[1:]) // 256)
    reduced = planes[:, ::step, ::step].reshape(3, -1).astype(np.float64)
    if (reduced.std(axis=1) == 0).any():
        return False
    correlations = np.asarray(np.corrcoef(reduced))
    return all(correlations[i, j] >= CORRELATION for i, j in itertools.combinations(range(3), 2))


def _step(series: TiffPageSeries, axis: str) -> int:
    """Pages from one plane along an axis to the next."""
    place = series.axes.index(axis)
    later = [
        extent
        for name, extent in zip(series.axes[place + 1 :], series.shape[place + 1 :], strict=True)
        if name not in "YXS"
    ]
    return int(np.prod(later, dtype=np.int64))


_AXES: Final = {"Z": "plane", "T": "time point", "C": "channel", "S": "sample", "I": "page", "Q": "page"}


def _list_planes(planes: dict[str, int]) -> str:
    return " and ".join(f"{_AXES.get(axis, 'plane')} 1 of {extent}" for axis, extent in planes.items())
