"""Decoded samples of any kind and depth turned into RGB of 8 bits.

*Depth.* Cameras of 10, 12 and 14 bits store their values in 16 without saying so, and a bright-field smear
nearly fills its camera's range. So samples wider than 8 bits, where the file does not state their depth, are
scaled by the smallest of ``FULL_SCALES`` that holds their largest value: 0..4095 for a largest value of 3870.
Floating-point samples are taken to run from 0 to 1 where none exceeds ``FLOAT_WHITE_LIMIT``, else by the same
list, and with negative values from their least to their largest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

RGBImage = npt.NDArray[np.uint8]

FULL_SCALES: Final = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32))
"""Largest values that a camera or a converter may mean by white."""
FLOAT_WHITE_LIMIT: Final = 2.0
"""Floating-point samples up to this are of the range 0..1; resampling overshoots a little."""
BAND_PIXELS: Final = 1 << 20
"""Pixels converted at a time, so that no second copy of a large field is made on the way."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Decoded samples and what they mean: ``colours`` (H, W, C) and ``alpha`` (H, W), of any real type."""

    colours: npt.NDArray[Any]
    kind: str
    alpha: npt.NDArray[Any] | None = None
    premultiplied: bool = False
    inverted: bool = False
    bits: int = 8
    palette: RGBImage | None = None

    @classmethod
    def of_channels(cls, pixels: npt.NDArray[Any]) -> Samples:
        """Of (H, W) or (H, W, C) pixels with C of 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
        channels = pixels[..., None] if pixels.ndim == 2 else pixels
        count = channels.shape[2]
        colours = 3 if count >= 3 else 1
        return cls(
            colours=channels[..., :colours],
            kind="rgb" if colours == 3 else "grey",
            alpha=channels[..., colours] if count > colours else None,
            bits=8 * pixels.dtype.itemsize,
        )

    def to_rgb(self, notes: list[str]) -> RGBImage:
        """RGB uint8 (H, W, 3), made band by band; already such samples are returned as they are."""
        height, width = self.colours.shape[:2]
        plain = self.palette is None and not self.inverted and self.bits == 8
        if self.colours.dtype == np.uint8 and self.kind == "rgb" and plain and self.alpha is None:
            return np.ascontiguousarray(self.colours)
        scale = Scale.of(self.colours, self.bits) if self.palette is None else None
        if scale is not None and scale.note:
            notes.append(scale.note)
        alpha_scale = None if self.alpha is None else Scale.of(self.alpha, self.bits)
        out = np.empty((height, width, 3), np.uint8)
        transparent = False
        for top, bottom in bands(height, width):
            rgb = self._band(self.colours[top:bottom], scale)
            if self.alpha is None or alpha_scale is None:
                out[top:bottom] = rgb
                continue
            opacity = alpha_scale.apply(self.alpha[top:bottom])
            transparent |= flatten(rgb, opacity, out[top:bottom], self.premultiplied)
        note_transparency(transparent, notes)
        return out

    def _band(self, samples: npt.NDArray[Any], scale: Scale | None) -> RGBImage:
        if self.palette is not None or scale is None:
            assert self.palette is not None
            return self.palette[samples[..., 0].astype(np.intp)]
        values = scale.apply(samples)
        if self.inverted:
            values = 255 - values
        if self.kind in ("cmyk", "ycbcr"):
            from PIL import Image

            mode = "CMYK" if self.kind == "cmyk" else "YCbCr"
            size = (values.shape[1], values.shape[0])
            values = np.asarray(Image.frombytes(mode, size, values.tobytes()).convert("RGB"))
        return values


@dataclass(frozen=True, slots=True)
class Scale:
    """Which sample values become black and white, and what to say of it."""

    low: float
    high: float
    note: str = ""

    @classmethod
    def of(cls, samples: npt.NDArray[Any], bits: int) -> Scale:
        """Of samples of any real type, of which ``bits`` are what the file says they have."""
        kind = samples.dtype.kind
        if kind == "b" or samples.dtype == np.uint8:
            return cls(0, 1 if kind == "b" else 2 ** min(bits, 8) - 1)
        if kind in "iu" and bits not in (16, 32, 64):
            return cls(0, 2**bits - 1, f"{bits}-bit values scaled by 255/{2**bits - 1}")
        least, peak = _finite_range(samples)
        name = f"{'floating-point' if kind == 'f' else f'{bits}-bit'} values"
        if kind == "f" and (least < 0 or peak > FULL_SCALES[-1]):
            return cls(least, max(peak, least + 1e-12), f"{name} stretched from {least:.6g}..{peak:.6g}")
        if kind == "f" and peak <= FLOAT_WHITE_LIMIT:
            return cls(0, 1, f"{name} scaled by 255")
        full = next((full for full in FULL_SCALES if peak <= full), max(peak, 1))
        if peak <= 0:
            full = FULL_SCALES[0]
        return cls(0, full, f"{name} scaled by 255/{full:.0f}")

    def apply(self, samples: npt.NDArray[Any]) -> RGBImage:
        """Samples as uint8, rounded; values outside, infinities and NaN end at black or white."""
        if samples.dtype == np.uint8 and (self.low, self.high) == (0, 255):
            return samples
        if samples.dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
            values = np.arange(np.iinfo(samples.dtype).max + 1)
            table: RGBImage = np.minimum(values * (255 / self.high) + 0.5, 255).astype(np.uint8)
            looked_up: RGBImage = table[samples]
            return looked_up
        with np.errstate(all="ignore"):
            scaled = (samples.astype(np.float64) - self.low) * (255 / (self.high - self.low)) + 0.5
        return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


def _finite_range(samples: npt.NDArray[Any]) -> tuple[float, float]:
    least, peak = np.inf, -np.inf
    for top, bottom in bands(*samples.shape[:2]):
        band = samples[top:bottom]
        if samples.dtype.kind == "f":
            band = band[np.isfinite(band)]
        if band.size:
            least, peak = min(least, float(band.min())), max(peak, float(band.max()))
    return (least, peak) if least <= peak else (0.0, 0.0)


def flatten(rgb: RGBImage, alpha: npt.NDArray[np.uint8], out: RGBImage, premultiplied: bool = False) -> bool:
    """Lay ``rgb`` (H, W, 1 or 3) on white into ``out``; return whether anything shone through."""
    if alpha.size and int(alpha.min()) == 255:
        out[:] = rgb
        return False
    opacity = alpha[..., None].astype(np.uint16)
    white = 255 * (255 - opacity)
    over = rgb.astype(np.uint16) * (255 if premultiplied else opacity)
    # 255 * 255 + 127 fits 16 bits; premultiplied colours brighter than their alpha would not.
    over = np.minimum(over, 255 * 255 - white)
    out[:] = (over + white + 127) // 255
    return True


def note_transparency(transparent: bool, notes: list[str]) -> None:
    """Add to the notes what ``flatten`` did, if it did anything."""
    if transparent:
        notes.append("transparent parts laid on white")


def bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """First row and row after the last of each band of about ``BAND_PIXELS`` that an image is done in."""
    rows = max(1, BAND_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
