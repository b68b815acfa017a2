"""What the classifier ``svm-features`` measures on a leukocyte: shape, colour and texture, 80 figures.

The groups are those of Putzu, Caocci & Di Ruberto (2014, doi:10.1016/j.artmed.2014.09.002). Texture is read
from grey-level co-occurrence matrices (Haralick et al. 1973, doi:10.1109/TSMC.1973.4309314).
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from leukokit.crops import optical_density
from leukokit.images import RGBImage
from skimage.feature import graycomatrix, graycoprops
from skimage.filters import threshold_otsu
from skimage.measure import label, perimeter, regionprops

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SHAPES: Final = (
    *("area", "perimeter", "compactness", "eccentricity", "solidity", "extent", "convexity"),
    *("lobes", "nucleus share", "threshold"),
)
CHANNELS: Final = ("R", "G", "B", "H", "S", "V", "L", "a", "b")
MOMENTS: Final = ("mean", "deviation", "skewness")
REGIONS: Final = ("nucleus", "cytoplasm")
TEXTURES: Final = ("contrast", "energy", "homogeneity", "correlation")
DISTANCES: Final = (1, 3)
"""Distances of the pixels of a pair, at a crop of 96 px."""
NAMES: Final = (
    *SHAPES,
    *(f"{moment} {c} {region}" for region in REGIONS for c in CHANNELS for moment in MOMENTS),
    *(f"{texture} {d} {region}" for region in REGIONS for texture in TEXTURES for d in DISTANCES),
)
"""Names of the figures, in their order."""

LEVELS: Final = 16
"""Grey levels of a co-occurrence matrix."""
LOBE_SHARE: Final = 0.03
"""Least share of the nucleus's area that counts as a lobe; what is smaller is a granule or a platelet."""
FOREGROUND_DENSITY: Final = 0.15
"""Optical density, mean of the channels, from which a pixel is no background."""
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.30, 0.90
"""Bounds on the red optical density that parts nucleus from cytoplasm; erythrocytes have about 0.16."""


def features(crop: RGBImage, cover: float) -> Floats:
    """The figures of a leukocyte, (80,) float64, finite.

    Args:
        crop: standardised RGB uint8 (S, S, 3), the leukocyte in the middle.
        cover: side of the crop in longer sides of the leukocyte's box.
    """
    nucleus, cytoplasm, threshold = regions(crop, cover)
    cell = _disc(crop.shape[0], cover)
    share = nucleus.sum() / cell.sum()
    figures = [*_shape(nucleus), float(share), threshold]
    channels = _channels(crop)
    for region in (nucleus, cytoplasm):
        figures += _colour(channels, region)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    for region in (nucleus, cytoplasm):
        figures += _texture(np.asarray(grey, dtype=np.uint8), region)
    return np.asarray(figures, dtype=np.float64)


def regions(crop: RGBImage, cover: float) -> tuple[Mask, Mask, float]:
    """Nucleus and cytoplasm, bool (S, S) each, and the red optical density that parts them (Otsu 1979)."""
    density = optical_density(crop)
    cell = _disc(crop.shape[0], cover)
    red = cv2.GaussianBlur(density[..., 0], (0, 0), 1.0)
    inside = red[cell]
    # Otsu's threshold of one value alone does not exist.
    found = float(threshold_otsu(inside)) if np.ptp(inside) > 1e-6 else HIGHEST_THRESHOLD
    threshold = float(np.clip(found, LOWEST_THRESHOLD, HIGHEST_THRESHOLD))
    nucleus = _without_specks((red > threshold) & cell)
    stained = density.mean(axis=2) > FOREGROUND_DENSITY
    return nucleus, cell & stained & ~nucleus, threshold


def _disc(side: int, cover: float) -> Mask:
    axis = np.arange(side) - (side - 1) / 2
    return np.asarray(axis[:, None] ** 2 + axis[None, :] ** 2 < (0.5 * side / cover) ** 2)


def _without_specks(mask: Mask) -> Mask:
    count, parts, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = figures[:, cv2.CC_STAT_AREA]
    kept = [number for number in range(1, count) if areas[number] >= LOBE_SHARE * mask.sum()]
    return np.asarray(np.isin(parts, kept))


def _shape(mask: Mask) -> list[float]:
    """The first eight of ``SHAPES``; lengths in sides of the crop. All zero where there is no nucleus."""
    area = float(mask.sum())
    if area == 0:
        return [0.0] * 8
    side = mask.shape[0]
    # All lobes as one region: the shape of a segmented nucleus is the shape of its lobes together.
    whole = regionprops(mask.astype(np.uint8))[0]
    length = max(float(perimeter(mask)), 1.0)
    hull = max(float(perimeter(whole.image_convex)), 1.0)
    return [
        area / side**2,
        length / side,
        4 * math.pi * area / length**2,
        float(whole.eccentricity),
        area / max(float(whole.area_convex), 1.0),
        float(whole.extent),
        hull / length,
        float(label(mask).max()),
    ]


def _channels(crop: RGBImage) -> npt.NDArray[np.float32]:
    """(S, S, 9) float32: RGB, HSV and Lab, each about 0..1; hue is turned so that red is 0.5."""
    scaled = crop.astype(np.float32) / 255
    hsv = cv2.cvtColor(scaled, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] / 360 + 0.5) % 1.0
    lab = cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB) / 100
    return np.concatenate([scaled, hsv, lab], axis=2)


def _colour(channels: npt.NDArray[np.float32], region: Mask) -> list[float]:
    if not region.any():
        return [0.0] * (len(CHANNELS) * len(MOMENTS))
    values = channels[region].astype(np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    third = ((values - mean) ** 3).mean(axis=0)
    skewness = np.where(deviation > 1e-4, third / np.maximum(deviation, 1e-4) ** 3, 0.0)
    return [float(value) for value in np.stack([mean, deviation, skewness], axis=1).ravel()]


def _texture(grey: npt.NDArray[np.uint8], region: Mask) -> list[float]:
    # Level 0 is what lies outside the region; pairs with it are left out.
    levels = np.where(region, 1 + grey // (256 // LEVELS), 0).astype(np.uint8)
    angles = [0, math.pi / 4, math.pi / 2, 3 * math.pi / 4]
    pairs = graycomatrix(levels, list(DISTANCES), angles, levels=LEVELS + 1, symmetric=True)[1:, 1:]
    # The angles together, so that a cell may lie as it likes.
    together = pairs.sum(axis=3, keepdims=True)
    return [float(value) for name in TEXTURES for value in graycoprops(together, name)[:, 0]]
