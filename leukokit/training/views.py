"""Training crops of single leukocytes: turned, shifted, resized, and varied in stain, focus and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.crops.cut import REACH
from leukokit.crops.stain import mix_stain
from leukokit.datasets.detected import CROP_PX
from leukokit.images.pixels import RGBImage, resize_image
from leukokit.images.standardize import WHITE
from leukokit.training.augment import disturb

COARSEST_PX: Final = 24
FINEST_PX: Final = 72
"""Sides that a crop is reduced to, and enlarged again, to look like one of a coarser camera."""


@dataclass(frozen=True, slots=True)
class Variation:
    """How much training crops are varied.

    Attributes:
        low_resolution: share of the crops that lose resolution.
        hue: standard deviation, in radians, of a turn of the optical densities about grey.
        edge: share of the crops that are cut off as by the edge of a picture.
    """

    low_resolution: float = 0.3
    hue: float = 0.0
    edge: float = 0.0


def plain_view(crop: RGBImage, px: int, cover: float) -> RGBImage:
    """The middle of a kept crop, as a classifier cuts it from a smear.

    Args:
        crop: RGB uint8 (CROP_PX, CROP_PX, 3).
        px: side of the result.
        cover: side of the result in longer sides of the cell's box, at most ``REACH``.
    """
    half = CROP_PX * cover / REACH / 2
    low, high = round(CROP_PX / 2 - half), round(CROP_PX / 2 + half)
    return resize_image(np.ascontiguousarray(crop[low:high, low:high]), px, px)


def varied_view(
    crop: RGBImage,
    px: int,
    cover: float,
    stain: npt.NDArray[np.float32] | None,
    variation: Variation,
    rng: np.random.Generator,
) -> RGBImage:
    """A random view of a kept crop, RGB uint8 (px, px, 3); ``stain`` is applied first (``mix_stain``)."""
    middle = CROP_PX / 2
    if variation.edge and rng.random() < variation.edge:
        crop, middle = _cut_off(crop, rng)
    angle = rng.uniform(0, 2 * math.pi)
    stretch = math.exp(rng.normal(0, 0.05))
    scale = px / (CROP_PX * cover / REACH) * math.exp(rng.normal(0, 0.12))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.diag([flip * scale * stretch, scale / stretch])
    target = px / 2 + rng.normal(0, 0.04 * px, 2)
    shift = target - linear @ np.array([middle, CROP_PX / 2])
    matrix = np.concatenate([linear, shift[:, None]], axis=1)
    view = cv2.warpAffine(crop, matrix, (px, px), flags=cv2.INTER_LINEAR, borderValue=(int(WHITE),) * 3)
    picture = np.asarray(view, dtype=np.uint8)
    if stain is not None:
        picture = mix_stain(picture, stain)
    if variation.hue:
        picture = mix_stain(picture, _turned_hue(variation.hue, rng))
    if rng.random() < variation.low_resolution:
        side = int(rng.uniform(COARSEST_PX, FINEST_PX))
        picture = resize_image(resize_image(picture, side, side), px, px)
    return disturb(picture, rng)


def _cut_off(crop: RGBImage, rng: np.random.Generator) -> tuple[RGBImage, float]:
    """A kept crop of which a picture's edge hides up to half the cell, and the middle, in x, of what is left.

    Which edge it is makes no difference: what comes after turns the crop by any angle.
    """
    hidden = rng.uniform(0.05, 0.5) * CROP_PX / REACH
    edge = CROP_PX / 2 + CROP_PX / REACH / 2 - hidden
    cut = np.array(crop)
    cut[:, round(edge) :] = int(WHITE)
    return cut, CROP_PX / 2 - hidden / 2


def _turned_hue(spread: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A turn about the grey axis with a change of saturation, as a map of optical densities."""
    angle, saturation = rng.normal(0, spread), math.exp(rng.normal(0, 0.3))
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * grey
    return (turn @ (saturation * np.eye(3) + (1 - saturation) * grey)).astype(np.float32)
