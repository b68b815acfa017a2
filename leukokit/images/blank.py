"""Parts of an image without smear: surrounds of round fields, missing tiles, bands of a stitched panorama.

Such a part is black, white or of one flat colour. It is found on a reduced copy of the image, in which camera
noise averages out and cells keep their texture. Three rules keep cells and background apart from it:

- a part darker than the background is black and touches the border, or has one colour throughout and either
  holds a corner of the image, spans a side of it, or is a rectangle;
- a part as bright as the background is nowhere blank: it is background;
- a part brighter than the background, by more than a lamp's unevenness, has exactly one colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.images.pixels import RGBImage

DARK: Final = 24
"""Grey value, in all channels, below which a part at the border is black."""
SMALLEST: Final = 0.002
"""Smallest share of the image that is taken for a black part at its border."""
SMALLEST_FLAT: Final = 0.01
"""Smallest share of the image that is taken for a blank part of another kind."""
LARGEST: Final = 0.9
"""Largest share: an image that is flat or dark all over is a smear badly lit, or no smear at all."""
NOISE: Final = 3.0
"""Largest difference of grey values between neighbours, and within 90% of a flat part, when reduced."""
LARGEST_WHITE: Final = 0.5
"""Largest share of a part brighter than the background: a larger one is itself background around cells."""
BRIGHTER: Final = 6.0
"""Grey values by which a flat part is brighter than the background, at least."""
DARKER: Final = 0.85
"""Brightness of a flat part relative to the background, at most."""
RECTANGULAR: Final = 0.92
"""Share of its bounding box that a rectangle fills, at least."""
BLURRED: Final = 40
"""Grey values by which the blurred edge of a blank part differs from it."""


@dataclass(frozen=True, slots=True)
class Blank:
    """Blank parts on a grid over the whole image, of (h, w) cells of any size.

    Attributes:
        mask: (h, w) bool, a cell wider than the parts.
        colours: uint8 (h, w, 3), the part's colour in and beside it.
    """

    mask: npt.NDArray[np.bool_]
    colours: RGBImage

    @property
    def share(self) -> float:
        """Share of the image."""
        return float(self.mask.mean())


def find_blank(small: RGBImage) -> Blank | None:
    """Find the parts of a reduced copy that show no smear; None where there are none.

    Args:
        small: RGB uint8 (h, w, 3), the image averaged to about 128 pixels.
    """
    black = _black_parts(small)
    flat = [part for part in _flat_parts(small, black) if not (part & black).any()]
    mask = np.zeros(small.shape[:2], bool)
    colours = np.zeros_like(small)
    for part in (black, *flat):
        if part.any():
            # Flat parts were found without their outermost pixels.
            kernel = np.ones((3, 3) if part is black else (5, 5), np.uint8)
            wide = cv2.dilate(part.astype(np.uint8), kernel).astype(bool)
            # Black parts vary up to this value, and their edges beyond it.
            colours[wide] = DARK - 1 if part is black else np.median(small[part], axis=0)
            mask |= wide
    return Blank(mask, colours) if 0 < mask.mean() < LARGEST else None


def _black_parts(small: RGBImage) -> npt.NDArray[np.bool_]:
    dark = (small.max(axis=2) < DARK).astype(np.uint8)
    count, parts, figures, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    border = set(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]).tolist())
    large = figures[:, cv2.CC_STAT_AREA] >= SMALLEST * dark.size
    chosen = [number for number in range(1, count) if large[number] and number in border]
    return np.isin(parts, chosen)


def _flat_parts(small: RGBImage, black: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    if min(small.shape[:2]) < 16:
        return []
    _, parts, figures, _ = cv2.connectedComponentsWithStats(_smooth(small), connectivity=4)
    large = np.flatnonzero(figures[:, cv2.CC_STAT_AREA] >= SMALLEST_FLAT * black.size)
    flat = [parts == number for number in large if number]
    flat = [part for part in flat if _has_one_colour(small[part], NOISE)]
    colours = [np.median(small[part], axis=0) for part in flat]
    chosen = []
    for part, colour in zip(flat, colours, strict=True):
        # Parts of one colour belong together: a round field may touch the border between them.
        alike = np.logical_or.reduce(
            [other for other, its in zip(flat, colours, strict=True) if np.abs(its - colour).max() <= NOISE]
        )
        background = _background(small, alike | black)
        if background is None or not _has_shape(part) or not _leaves_one_piece(alike):
            continue
        level = float(small[part].mean())
        is_white = level > background + BRIGHTER and alike.mean() <= LARGEST_WHITE
        if level < DARKER * background or (is_white and _has_one_colour(small[part], 1.0)):
            chosen.append(part)
    return chosen


def _smooth(small: RGBImage) -> npt.NDArray[np.uint8]:
    """(h, w) uint8: 1 where a pixel and its neighbours differ by noise alone."""
    kernel = np.ones((3, 3), np.uint8)
    spread = (cv2.dilate(small, kernel).astype(int) - cv2.erode(small, kernel)).max(axis=2)
    return np.asarray(spread <= NOISE, np.uint8)


def _has_one_colour(colours: RGBImage, spread: float) -> bool:
    low, high = np.percentile(colours, [5, 95], axis=0)
    return bool((high - low).max() <= spread)


def _background(small: RGBImage, left_out: npt.NDArray[np.bool_]) -> float | None:
    rest = small[~left_out]
    return float(np.percentile(rest.mean(axis=1), 90)) if len(rest) >= 0.1 * left_out.size else None


def _has_shape(part: npt.NDArray[np.bool_]) -> bool:
    """Whether a part is a rectangle, holds a corner of the image, or spans one of its sides."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    holds_corner = part[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    spans_side = part[0].all() or part[-1].all() or part[:, 0].all() or part[:, -1].all()
    return bool(part.sum() >= RECTANGULAR * box or holds_corner or spans_side)


def _leaves_one_piece(parts: npt.NDArray[np.bool_]) -> bool:
    """Whether the rest of the image is mainly one large piece, which cells on a background are not."""
    count, _, figures, _ = cv2.connectedComponentsWithStats((~parts).astype(np.uint8), connectivity=8)
    largest = figures[1:, cv2.CC_STAT_AREA].max() if count > 1 else 0
    return bool(largest >= 0.8 * (parts.size - parts.sum()) and largest >= 0.3 * parts.size)
