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

Parts that show no smear (``blank``) are left out of the measurements and made white, so that nothing is found
there.

Boxes never move: the standardised image has the size of the original.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.images.blank import BLURRED, Blank, find_blank
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

WHITE = 240.0
"""Grey value given to the background, so that what is brighter than it is not clipped."""


@dataclass(frozen=True, slots=True)
class Standardization:
    """What was measured on one field, and therefore what was undone.

    Attributes:
        surface: (7, 3) float32, log background intensity per channel (red, green, blue) as a quadratic
            in x and y and a fourth power of the radius, both running from -1 to 1 over the field.
        gains: (3,) float32, factor on the optical density per channel.
        blank: the parts of the field that show no smear; None where there are none.
    """

    surface: npt.NDArray[np.float32]
    gains: npt.NDArray[np.float32]
    blank: Blank | None = None
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

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for the user where parts of the field show no smear."""
        if self.blank is None:
            return ()
        share = f"{max(self.blank.share, 0.01):.0%}"
        return (f"{share} of the image shows no smear (black, white or flat): nothing is counted there",)

    def apply(
        self, image: RGBImage, extent: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    ) -> RGBImage:
        """Return a standardised copy of the field or of a part of it, at any size.

        Args:
            image: RGB uint8 (H, W, 3), the whole field or a part of it, reduced or not.
            extent: the part of the field that it shows: left, top, right, bottom as fractions of the field.

        Returns:
            RGB uint8 (H, W, 3). It is made strip by strip, so that memory beside it stays small.
        """
        height, width = image.shape[:2]
        left, top, right, bottom = extent
        down = (bottom - top) / max(height - 1, 1)
        out = np.empty_like(image)
        rows = max(1, STRIP_PIXELS // max(width, 1))
        for start in range(0, height, rows):
            strip = np.ascontiguousarray(image[start : start + rows])
            part = (left, top + start * down, right, top + (start + len(strip) - 1) * down)
            light = _enlarged(self._light, part, strip)
            out[start : start + rows] = cv2.multiply(cv2.LUT(strip, self._powers), light, dtype=cv2.CV_8U)
            if self.blank is not None:
                out[start : start + rows][_is_blank(self.blank, part, strip)] = int(WHITE)
        return out

    def to_json(self) -> dict[str, Any]:
        """Return what a result records: the coefficients, the gains, and the unevenness for people."""
        return {
            "unevenness": round(self.unevenness, 3),
            "stain_gains": [round(float(gain), 4) for gain in self.gains],
            "light_surface": [[round(float(value), 5) for value in row] for row in self.surface],
            "blank_share": 0.0 if self.blank is None else round(self.blank.share, 4),
        }


def estimate_standardization(image: RGBImage) -> Standardization:
    """Measure the light, the stain and the blank parts of a field.

    The expectile fit follows Newey & Powell (1987, doi:10.2307/1911031).

    Args:
        image: RGB uint8 (H, W, 3), H and W at least 1.
    """
    height, width = image.shape[:2]
    small = scale_image(image, min(1.0, REDUCED_SIDE / max(height, width)))
    log_intensity = np.log(np.maximum(small.reshape(-1, 3).astype(np.float32), 1.0))
    basis = _basis(*small.shape[:2])
    blank = find_blank(small)
    if blank is not None:
        shows_smear = ~blank.mask.ravel()
        basis, log_intensity = basis[shows_smear], log_intensity[shows_smear]
    surface = _upper_envelope(basis, log_intensity)
    density = np.maximum(basis @ surface - log_intensity, 0.0)
    return Standardization(surface=surface, gains=_stain_gains(density), blank=blank)


def standardize(image: RGBImage) -> RGBImage:
    """Return a standardised copy of a field, RGB uint8 (H, W, 3).

    Examples:
        >>> import numpy as np
        >>> dim = np.full((48, 64, 3), 120, np.uint8)
        >>> int(standardize(dim)[0, 0, 0])  # the background becomes white
        240
    """
    return estimate_standardization(image).apply(image)


def _is_blank(
    blank: Blank, extent: tuple[float, float, float, float], picture: RGBImage
) -> npt.NDArray[np.bool_]:
    """(H, W): pixels in and near the blank parts that have their colour, a blurred edge included."""
    near = _enlarged(blank.mask.astype(np.float32), extent, picture) > 0
    if not near.any():
        return near
    colours = _enlarged(blank.colours.astype(np.float32), extent, picture, cv2.INTER_NEAREST)
    apart = np.abs(picture.astype(np.float32) - colours).max(axis=2)
    return np.asarray(near & (apart <= BLURRED), np.bool_)


def _enlarged(
    grid: npt.NDArray[np.float32],
    extent: tuple[float, float, float, float],
    picture: RGBImage,
    interpolation: int = cv2.INTER_LINEAR,
) -> npt.NDArray[np.float32]:
    """A grid over the whole field at every pixel of a picture of part of it."""
    (rows, columns), (height, width) = grid.shape[:2], picture.shape[:2]
    left, top, right, bottom = extent
    across = (right - left) * (columns - 1) / max(width - 1, 1)
    down = (bottom - top) * (rows - 1) / max(height - 1, 1)
    matrix = np.array([[across, 0, left * (columns - 1)], [0, down, top * (rows - 1)]])
    way = interpolation | cv2.WARP_INVERSE_MAP
    enlarged = cv2.warpAffine(grid, matrix, (width, height), flags=way, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(enlarged, np.float32)


@lru_cache(maxsize=8)
def _basis(height: int, width: int) -> npt.NDArray[np.float32]:
    # Kept, because the fields of a folder have few sizes.
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    radius = x * x + y * y
    terms = [np.ones_like(x), x, y, x * x, y * y, x * y, radius * radius]
    basis = np.stack([term.ravel() for term in terms], axis=1).astype(np.float32)
    basis.setflags(write=False)
    return basis


def _upper_envelope(
    basis: npt.NDArray[np.float32], log_intensity: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    terms, count = np.ascontiguousarray(basis.T), len(basis)
    # The ridge spares the constant: with little background in sight the surface tends to flat light.
    ridge = 2e-3 * count * np.diag([0.0, 1, 1, 1, 1, 1, 1])
    # Sums over all pixels once; each iteration adds the share of those above the surface, which are few.
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
