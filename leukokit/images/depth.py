"""Decoded samples of any kind turned into RGB of 8 bits; ``scale`` finds their full scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leukokit.images.pixels import RGBImage
from leukokit.images.scale import Scale

BAND_PIXELS: Final = 1 << 20
"""Pixels converted at a time, so that no second copy of a large field is made on the way."""
LEAST_OPAQUE: Final = 0.02
"""Share of opaque pixels below which an alpha channel is taken for an empty one, and ignored."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Decoded samples and what they mean.

    Attributes:
        colours: (H, W, C) of any real type.
        kind: ``grey``, ``rgb``, ``cmyk`` or ``ycbcr``.
        alpha: (H, W) of any real type, if there is such a channel.
        premultiplied: whether the colours are multiplied by alpha.
        inverted: whether the largest value is black.
        bits: depth that the file states; of a container for samples of another depth, the container's.
        palette: RGB uint8 (K, 3); then the colours are positions in it.
        white: value of white that the file's own tags state; None where they state none.
    """

    colours: npt.NDArray[Any]
    kind: str
    alpha: npt.NDArray[Any] | None = None
    premultiplied: bool = False
    inverted: bool = False
    bits: int = 8
    palette: RGBImage | None = None
    white: float | None = None

    @classmethod
    def of_channels(cls, pixels: npt.NDArray[Any], bits: int | None = None) -> Samples:
        """Take (H, W) or (H, W, C) pixels; C of 1 is grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
        channels = pixels[..., None] if pixels.ndim == 2 else pixels
        count = channels.shape[2]
        colours = 3 if count >= 3 else 1
        return cls(
            colours=channels[..., :colours],
            kind="rgb" if colours == 3 else "grey",
            alpha=channels[..., colours] if count > colours else None,
            bits=8 * pixels.dtype.itemsize if bits is None else bits,
        )

    def to_rgb(self, notes: list[str]) -> RGBImage:
        """Convert band by band to RGB uint8 (H, W, 3); samples of that form are returned as they are."""
        height, width = self.colours.shape[:2]
        is_rgb = self.colours.dtype == np.uint8 and self.kind == "rgb" and self.bits == 8
        if is_rgb and self.palette is None and not self.inverted and self.alpha is None:
            return np.ascontiguousarray(self.colours)
        scale = Scale.of(self.colours, self.bits, self.white) if self.palette is None else None
        if scale is not None and scale.note:
            notes.append(scale.note)
        alpha, alpha_scale = self._used_alpha(notes)
        out = np.empty((height, width, 3), np.uint8)
        is_transparent = False
        for top, bottom in bands(height, width):
            rgb = self._band(self.colours[top:bottom], scale)
            if alpha is None or alpha_scale is None:
                out[top:bottom] = rgb
                continue
            opacity = alpha_scale.apply(alpha[top:bottom])
            is_transparent |= flatten(rgb, opacity, out[top:bottom], self.premultiplied)
        if is_transparent:
            notes.append("transparent parts laid on white")
        return out

    def _used_alpha(self, notes: list[str]) -> tuple[npt.NDArray[Any] | None, Scale | None]:
        """The alpha channel and its scale; neither where it would hide the whole picture."""
        if self.alpha is None:
            return None, None
        scale = Scale.of_alpha(self.alpha)
        opaque = sum(
            int((scale.apply(self.alpha[top:bottom]) > 127).sum()) for top, bottom in bands(*self.alpha.shape)
        )
        if opaque >= LEAST_OPAQUE * self.alpha.size or self.colours.min() == self.colours.max():
            return self.alpha, scale
        notes.append("the alpha channel is empty: ignored")
        return None, None

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


def flatten(rgb: RGBImage, alpha: npt.NDArray[np.uint8], out: RGBImage, premultiplied: bool = False) -> bool:
    """Lay ``rgb`` (H, W, 1 or 3) on white into ``out``; return whether any white shows through."""
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


def bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield first row and row after the last of each band of about ``BAND_PIXELS`` of an image."""
    rows = max(1, BAND_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
