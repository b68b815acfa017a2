"""The full scale of samples wider than 8 bits: which value becomes black and which one white.

Cameras of 10, 12 and 14 bits store their values in 16 without saying so, and a bright-field smear nearly
fills its camera's range. So the smallest of ``FULL_SCALES`` is taken that holds all but the brightest
``OVERLAY`` of the pixels: a hot pixel, a scale bar or a label burnt in at the container's largest value must
not make the field dark. A white that the file's tags state comes first. Floating-point samples are taken to
run from 0 to 1 where they fit, else by the same list. Samples with many negative values are taken as signed:
from the negative of a half scale to its positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leukokit.images.pixels import RGBImage

FULL_SCALES: Final = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32))
"""Values that a camera or a converter may mean by white."""
HALF_SCALES: Final = tuple(2 ** (bits - 1) for bits in (8, 10, 12, 14, 16, 24, 32))
"""The same for samples stored with their middle at zero."""
FLOAT_WHITE: Final = 2.0
"""Floating-point samples up to this have the range 0..1; resampling overshoots a little."""
OVERLAY: Final = 0.05
"""Largest share of the pixels, the brightest, that a scale bar, a label and hot pixels may take."""
OUTLIERS: Final = 0.001
"""Largest share of the pixels, the darkest, that are taken for outliers."""
SAMPLED_PIXELS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Scale:
    """Which sample values become black and white, and a note about it."""

    low: float
    high: float
    note: str = ""

    @classmethod
    def of(cls, samples: npt.NDArray[Any], bits: int, white: float | None = None) -> Scale:
        """Find the scale of samples.

        Args:
            samples: (H, W, C) of any real type.
            bits: depth that the file states.
            white: value of white that the file's tags state, if they do.
        """
        kind = samples.dtype.kind
        if kind == "b" or samples.dtype == np.uint8:
            return cls(0, 1 if kind == "b" else 2 ** min(bits, 8) - 1)
        if kind == "u" and bits not in (16, 32, 64):
            return cls(0, 2**bits - 1, f"{bits}-bit values scaled by 255/{2**bits - 1}")
        darkest, brightest, invalid = _pixel_ranges(samples)
        if kind == "f":
            found = _float_scale(darkest, brightest, white)
        else:
            found = _integer_scale(darkest, brightest, bits, white)
        if invalid:
            note = f"{found.note}; {invalid:,} pixels without a finite value set to black or white"
            return cls(found.low, found.high, note)
        return found

    @classmethod
    def of_alpha(cls, alpha: npt.NDArray[Any]) -> Scale:
        """Find the scale of an alpha channel (H, W): opaque is a full scale that occurs, or the type's."""
        if alpha.dtype.kind not in "iu":
            return cls(0, 1)
        peak = int(alpha.max(initial=0))
        return cls(0, peak if peak in FULL_SCALES else int(np.iinfo(alpha.dtype).max))

    def apply(self, samples: npt.NDArray[Any]) -> RGBImage:
        """Return samples as uint8, rounded; values outside, infinities and NaN become black or white."""
        if samples.dtype == np.uint8 and (self.low, self.high) == (0, 255):
            return samples
        if samples.dtype in (np.dtype(np.uint8), np.dtype(np.uint16)) and self.low == 0:
            values = np.arange(np.iinfo(samples.dtype).max + 1)
            table: RGBImage = np.minimum(values * (255 / self.high) + 0.5, 255).astype(np.uint8)
            looked_up: RGBImage = table[samples]
            return looked_up
        with np.errstate(all="ignore"):
            scaled = (samples.astype(np.float64) - self.low) * (255 / (self.high - self.low)) + 0.5
        return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


def _integer_scale(
    darkest: npt.NDArray[np.float64], brightest: npt.NDArray[np.float64], bits: int, white: float | None
) -> Scale:
    if _share_below(darkest, 0) > OUTLIERS:
        for half in HALF_SCALES:
            if _share_below(darkest, -half) <= OUTLIERS and _share_above(brightest, half - 1) <= OVERLAY:
                break
        return Scale(-half, half - 1, f"signed {bits}-bit values scaled from {-half}..{half - 1}")
    if white is not None and _share_above(brightest, white) <= OVERLAY:
        return Scale(0, white, f"{bits}-bit values scaled by 255/{white:.0f}, white as the file's tags say")
    return Scale(0, *_full_scale(brightest, f"{bits}-bit values"))


def _float_scale(
    darkest: npt.NDArray[np.float64], brightest: npt.NDArray[np.float64], white: float | None
) -> Scale:
    name = "floating-point values"
    is_signed = _share_below(darkest, 0) > OUTLIERS
    if not is_signed and white is not None and _share_above(brightest, white) <= OVERLAY:
        return Scale(0, white, f"{name} scaled by 255/{white:g}, white as the file's tags say")
    if not is_signed and _share_above(brightest, FLOAT_WHITE) <= OVERLAY:
        return Scale(0, 1, f"{name} scaled by 255" + _clipped(brightest, FLOAT_WHITE))
    if not is_signed and _share_above(brightest, FULL_SCALES[-1]) <= OVERLAY:
        return Scale(0, *_full_scale(brightest, name))
    low = float(np.quantile(darkest, 0.0005, method="lower"))
    high = float(np.quantile(brightest, 0.9995, method="higher"))
    return Scale(low, max(high, low + 1e-12), f"{name} stretched from {low:.6g}..{high:.6g}")


def _full_scale(brightest: npt.NDArray[np.float64], name: str) -> tuple[float, str]:
    full: float = next((full for full in FULL_SCALES if _share_above(brightest, full) <= OVERLAY), 0)
    if not full:
        full = float(brightest.max())
    return full, f"{name} scaled by 255/{full:.0f}" + _clipped(brightest, full)


def _clipped(brightest: npt.NDArray[np.float64], white: float) -> str:
    share = _share_above(brightest, white)
    return f"; {max(share, 0.0001):.2%} of the pixels are brighter and set to white" if share else ""


def _share_above(values: npt.NDArray[np.float64], threshold: float) -> float:
    return float((values > threshold).mean()) if values.size else 0.0


def _share_below(values: npt.NDArray[np.float64], threshold: float) -> float:
    return float((values < threshold).mean()) if values.size else 0.0


def _pixel_ranges(
    samples: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Smallest and largest channel of each of up to a million pixels, and how many are not finite."""
    step = max(1, int(np.ceil(np.sqrt(samples.shape[0] * samples.shape[1] / SAMPLED_PIXELS))))
    pixels = samples[::step, ::step].reshape(-1, samples.shape[2])
    invalid = 0
    if samples.dtype.kind == "f":
        finite = np.isfinite(pixels).all(axis=1)
        invalid = int((~np.isfinite(samples)).any(axis=2).sum()) if not finite.all() or step > 1 else 0
        pixels = pixels[finite]
    return pixels.min(axis=1).astype(np.float64), pixels.max(axis=1).astype(np.float64), invalid
