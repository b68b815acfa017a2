"""Bring the light and the stain of a field of view to one reference before detection.

Laboratories differ in lamp, stain and camera far more than cells do. Three measured steps, all on a
reduced copy of the field, undo most of it:

1. *Light.* The background is the upper envelope of the intensities. A quadratic surface with a
   vignetting term is fitted to the log intensity of each channel by expectile regression (asymmetric
   least squares), so that a pixel darker than the surface hardly pulls on it. Seven coefficients cannot
   follow single cells, as a blurred copy of the field does; only a lone cell that fills nearly half of
   an otherwise empty picture still bends them.
2. *White.* Dividing by that surface sets the empty background to white (Beer-Lambert: what is left is
   transmittance, and ``-log`` of it optical density).
3. *Stain.* The optical density of the palest half of everything that is not background, which is
   mostly erythrocytes, is scaled to a fixed anchor, one gain per channel, within limits.

What shows no smear at all, the black around a round field of view or around a turned picture, is left out
of the measurements and made white, so that nothing is found there.

Boxes never move: the standardised image has the size of the original.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.images.pixels import RGBImage, scale_image

REDUCED_SIDE = 128
"""Longer side, in pixels, of the copy that everything is estimated on."""
ENVELOPE = 0.97
"""Expectile of the log intensities that is taken for the background."""
ANCHOR_DENSITY = np.array([0.16, 0.50, 0.36], dtype=np.float32)
"""Optical density (natural log; red, green, blue) to which a field's pale foreground is brought."""
GAIN_LIMITS = (0.5, 3.0)
GRID = 64
STRIP_PIXELS = 1 << 20
UNLIT = 24
"""Grey value, in all channels, below which a part at the picture's border shows no smear."""
UNLIT_EDGE = 64
"""The same beside such a part, whose edge is blurred."""
LEAST_UNLIT = 0.002
"""Smallest share of the picture that is taken for such a part."""
WHITE = 240.0
"""Grey value given to the background, so that what is brighter than it is not clipped."""


@dataclass(frozen=True, slots=True)
class Standardization:
    """What was measured on one field, and therefore what was undone.

    Attributes:
        surface: (7, 3) float32, log background intensity per channel (red, green, blue) as a quadratic
            in x and y and a fourth power of the radius, both running from -1 to 1 over the field.
        gains: (3,) float32, factor on the optical density per channel.
        unlit: bool (h, w) map of the whole field, at some size, of what shows no smear; None where all does.
    """

    surface: npt.NDArray[np.float32]
    gains: npt.NDArray[np.float32]
    unlit: npt.NDArray[np.bool_] | None = None
    # (I / B) ** g = I ** g * B ** -g: the first from a table; the second is smooth, and enlarged from a small
    # grid costs next to nothing.
    _powers: npt.NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _light: npt.NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the tables once: a field is standardised piece by piece."""
        levels = np.maximum(np.arange(256, dtype=np.float32), 1.0)[None, :, None]
        object.__setattr__(self, "_powers", levels**self.gains)
        light = WHITE * np.exp(-self.gains * (_basis(GRID, GRID) @ self.surface))
        object.__setattr__(self, "_light", light.reshape(GRID, GRID, 3).astype(np.float32))

    @property
    def unevenness(self) -> float:
        """Largest ratio of background light between two places of the field, any channel (1 is even)."""
        log_light = _basis(16, 16) @ self.surface
        return float(np.exp(np.ptp(log_light, axis=0).max()))

    def apply(
        self, image: RGBImage, extent: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    ) -> RGBImage:
        """Standardised copy of a picture of the field, at whatever size.

        Args:
            image: RGB uint8 (H, W, 3), the whole field or a part of it, reduced or not.
            extent: the part of the field it shows: left, top, right, bottom as fractions of the field.

        Returns:
            RGB uint8 (H, W, 3). Work is done in strips, so that memory beside it stays small.
        """
        height, width = image.shape[:2]
        left, top, right, bottom = extent
        unlit = None if self.unlit is None else self.unlit.astype(np.float32)
        down = (bottom - top) / max(height - 1, 1)
        out = np.empty_like(image)
        rows = max(1, STRIP_PIXELS // max(width, 1))
        for start in range(0, height, rows):
            strip = np.ascontiguousarray(image[start : start + rows])
            shown = (left, top + start * down, right, top + (start + len(strip) - 1) * down)
            light = _enlarged(self._light, shown, strip)
            out[start : start + rows] = cv2.multiply(cv2.LUT(strip, self._powers), light, dtype=cv2.CV_8U)
            if unlit is not None:
                near = _enlarged(unlit, shown, strip)
                out[start : start + rows][(near > 0) & (strip.max(axis=2) < UNLIT_EDGE)] = int(WHITE)
        return out

    def to_json(self) -> dict[str, Any]:
        """What a result records: the coefficients, the gains, and the unevenness for people."""
        return {
            "unevenness": round(self.unevenness, 3),
            "stain_gains": [round(float(gain), 4) for gain in self.gains],
            "light_surface": [[round(float(value), 5) for value in row] for row in self.surface],
            "unlit_share": 0.0 if self.unlit is None else round(float(self.unlit.mean()), 4),
        }


def estimate_standardization(image: RGBImage) -> Standardization:
    """Measure light and stain of a field.

    Args:
        image: RGB uint8 (H, W, 3), H and W at least 1.

    The expectile fit follows Newey & Powell (1987, doi:10.2307/1911031).
    """
    height, width = image.shape[:2]
    small = scale_image(image, min(1.0, REDUCED_SIDE / max(height, width)))
    log_intensity = np.log(np.maximum(small.reshape(-1, 3).astype(np.float32), 1.0))
    basis = _basis(*small.shape[:2])
    unlit = _unlit(small)
    if unlit is not None:
        lit = ~unlit.ravel()
        basis, log_intensity = basis[lit], log_intensity[lit]
    surface = _upper_envelope(basis, log_intensity)
    density = np.maximum(basis @ surface - log_intensity, 0.0)
    return Standardization(surface=surface, gains=_stain_gains(density), unlit=unlit)


def standardize(image: RGBImage) -> RGBImage:
    """``estimate_standardization(image).apply(image)``."""
    return estimate_standardization(image).apply(image)


def _unlit(small: RGBImage) -> npt.NDArray[np.bool_] | None:
    """What shows no smear in a reduced copy, one pixel wider than it is; None where nothing is so."""
    dark = (small.max(axis=2) < UNLIT).astype(np.uint8)
    if not dark.any():
        return None
    count, parts, figures, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    large = figures[:, cv2.CC_STAT_AREA] >= LEAST_UNLIT * dark.size
    chosen = [number for number in range(1, count) if large[number] and number in border]
    unlit = cv2.dilate(np.isin(parts, chosen).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    # A picture that is dark all over is a smear badly lit.
    return unlit if 0 < unlit.mean() < 0.9 else None


def _enlarged(
    grid: npt.NDArray[np.float32], extent: tuple[float, float, float, float], picture: RGBImage
) -> npt.NDArray[np.float32]:
    """A grid over the whole field at every pixel of a picture of part of it, interpolated linearly."""
    (rows, columns), (height, width) = grid.shape[:2], picture.shape[:2]
    left, top, right, bottom = extent
    across = (right - left) * (columns - 1) / max(width - 1, 1)
    down = (bottom - top) * (rows - 1) / max(height - 1, 1)
    matrix = np.array([[across, 0, left * (columns - 1)], [0, down, top * (rows - 1)]])
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    enlarged = cv2.warpAffine(grid, matrix, (width, height), flags=way, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(enlarged, np.float32)


def _basis(height: int, width: int) -> npt.NDArray[np.float32]:
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    radius = x * x + y * y
    terms = [np.ones_like(x), x, y, x * x, y * y, x * y, radius * radius]
    return np.stack([term.ravel() for term in terms], axis=1).astype(np.float32)


def _upper_envelope(
    basis: npt.NDArray[np.float32], log_intensity: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    terms, count = np.ascontiguousarray(basis.T), len(basis)
    # The ridge spares the constant: with little background in sight the surface tends to flat light.
    ridge = 2e-3 * count * np.diag([0.0, 1, 1, 1, 1, 1, 1])
    # Of all pixels once; every turn adds what is due to those above the surface, which are few.
    low, more = 1 - ENVELOPE, 2 * ENVELOPE - 1
    products, moments = low * (terms @ basis), low * (terms @ log_intensity)
    surface = np.zeros((7, 3), dtype=np.float32)
    for channel in range(3):
        target = np.ascontiguousarray(log_intensity[:, channel])
        coefficients = np.array([np.quantile(target, 0.9), 0, 0, 0, 0, 0, 0], dtype=np.float32)
        above = np.zeros(count, dtype=bool)
        for turn in range(12):
            before, above = above, target > coefficients @ terms
            if turn and np.array_equal(above, before):
                break
            places = np.flatnonzero(above)
            high = terms.take(places, axis=1)
            normal = products + more * (high @ high.T) + ridge * (low + more * len(places) / count)
            right = moments[:, channel] + more * (high @ target[places])
            coefficients = np.linalg.solve(normal, right).astype(np.float32)
        surface[:, channel] = coefficients
    return surface


def _stain_gains(density: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    overall = density.mean(axis=1)
    # The root draws the dark end together: Otsu parts cells from background, not nuclei from the rest.
    root = np.sqrt(overall)
    grey = (root / max(float(root.max()), 1e-2) * 255).astype(np.uint8)
    cut, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    foreground = density[grey > 0.9 * cut]
    if len(foreground) < 0.005 * len(density):
        return np.ones(3, dtype=np.float32)
    pale = foreground[foreground.mean(axis=1) <= np.median(foreground.mean(axis=1))]
    anchor = np.median(pale, axis=0)
    gains = (ANCHOR_DENSITY + 0.08) / (anchor + 0.08)
    return np.asarray(np.clip(gains, *GAIN_LIMITS), dtype=np.float32)
