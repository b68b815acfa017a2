"""Pictures of what is no leukocyte, made from annotated crops: the training cells of the class ``unknown``.

Smudge cells, windows beside a cell, and two cells in one window. They are made in the stain and camera of
every laboratory alike, so that ``unknown`` cannot be learnt as the look of one.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.crops.cut import REACH, optical_density
from leukokit.datasets.detected import CROP_PX
from leukokit.images.pixels import RGBImage
from leukokit.images.standardize import WHITE

DensityPicture = npt.NDArray[np.float32]

CELL_PX: Final = CROP_PX / REACH
"""Longer side of the cell's box in a kept crop."""
SMUDGES: Final = 0.65
BESIDE: Final = 0.2
"""Shares of smudges and of windows beside a cell; the rest are two cells in one window."""

_Y, _X = np.mgrid[0:CROP_PX, 0:CROP_PX].astype(np.float32) - np.float32(CROP_PX / 2)


def made_outlier(crop: RGBImage, other: RGBImage, rng: np.random.Generator) -> RGBImage:
    """Draw an outlier from two kept crops, RGB uint8 (CROP_PX, CROP_PX, 3), of one laboratory."""
    chance = rng.random()
    if chance < SMUDGES:
        made = smudge(crop, rng)
        if made is not None:
            return made
    return beside(crop, rng) if chance < SMUDGES + BESIDE else pair(crop, other, rng)


def smudge(crop: RGBImage, rng: np.random.Generator) -> RGBImage | None:
    """Spread the cell's nucleus over its surroundings as a smudge cell's is; None of a crop without one."""
    density = optical_density(crop)
    inside = np.hypot(_X, _Y) < 0.5 * CELL_PX
    nucleus = np.clip((density[..., 0] - 0.35) / 0.2, 0, 1) * inside
    if nucleus.sum() < 200:
        return None
    dye = (density * nucleus[..., None]).sum(axis=(0, 1)) / nucleus.sum()
    shape = cv2.GaussianBlur(nucleus.astype(np.float32), (0, 0), rng.uniform(2, 5))
    shape = _spread(np.asarray(shape, np.float32), rng)
    if rng.random() < 0.6:
        shape = np.asarray(cv2.filter2D(shape, -1, _streak(rng)), np.float32)
    grain = rng.normal(0, 1, shape.shape).astype(np.float32)
    grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), rng.uniform(1, 3)), np.float32)
    shape = np.clip(shape * (1 + grain * rng.uniform(0.2, 0.9)), 0, 1.3) * rng.uniform(0.45, 0.95)
    around = _without_cell(density, rng)
    covered = np.clip(shape, 0, 1)[..., None]
    return _drawn_picture(around * (1 - 0.7 * covered) + shape[..., None] * dye)


def beside(crop: RGBImage, rng: np.random.Generator) -> RGBImage:
    """Shift the window so that the cell is at its rim: a detection of something else."""
    angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.8, 1.0) * CELL_PX
    move = np.array([[1, 0, distance * math.cos(angle)], [0, 1, distance * math.sin(angle)]])
    white = (int(WHITE),) * 3
    return np.asarray(cv2.warpAffine(crop, move, (CROP_PX, CROP_PX), borderValue=white), np.uint8)


def pair(left: RGBImage, right: RGBImage, rng: np.random.Generator) -> RGBImage:
    """Put two cells side by side where one belongs."""
    shift = int(rng.uniform(0.35, 0.6) * CELL_PX)
    share = (1 / (1 + np.exp(-_X / 1.5)))[..., None]
    one, two = np.roll(left, -shift, axis=1), np.roll(right, shift, axis=1)
    return np.asarray(one * (1 - share) + two * share, np.uint8)


def _spread(shape: DensityPicture, rng: np.random.Generator) -> DensityPicture:
    """Enlarge, stretch and tear a shape (CROP_PX, CROP_PX)."""
    size, stretch = rng.uniform(1.1, 1.7), math.exp(rng.normal(0, 0.25))
    turn = cv2.getRotationMatrix2D((0, 0), math.degrees(rng.uniform(0, math.pi)), 1)[:, :2]
    back = turn @ np.diag([1 / (size * stretch), stretch / size])
    drift = _noise(rng, rng.uniform(8, 18), rng.uniform(5, 14)) + _noise(rng, 3, rng.uniform(1, 4))
    x, y = _X + drift[..., 0], _Y + drift[..., 1]
    half = CROP_PX / 2
    source_x = (back[0, 0] * x + back[0, 1] * y + half).astype(np.float32)
    source_y = (back[1, 0] * x + back[1, 1] * y + half).astype(np.float32)
    return np.asarray(cv2.remap(shape, source_x, source_y, cv2.INTER_LINEAR), np.float32)


def _streak(rng: np.random.Generator) -> DensityPicture:
    """A kernel that blurs along a line."""
    reach, angle = int(rng.integers(3, 21)), rng.uniform(0, math.pi)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    x, y = reach * math.cos(angle), reach * math.sin(angle)
    cv2.line(kernel, (int(reach - x), int(reach - y)), (int(reach + x), int(reach + y)), 1.0)
    return kernel / max(float(kernel.sum()), 1.0)


def _without_cell(density: DensityPicture, rng: np.random.Generator) -> DensityPicture:
    """Fill the cell's place in (CROP_PX, CROP_PX, 3) optical densities smoothly from around."""
    drift = _noise(rng, 8, 3)
    distance = np.hypot(_X + drift[..., 0], _Y + drift[..., 1])
    kept = np.clip((distance - 0.6 * CELL_PX) / 4, 0, 1).astype(np.float32)[..., None]
    size = (48, 48)
    colours = cv2.resize(density * kept, size, interpolation=cv2.INTER_AREA)
    weights = cv2.resize(kept, size, interpolation=cv2.INTER_AREA)
    sigma = rng.uniform(3, 6)
    blurred = cv2.GaussianBlur(weights, (0, 0), sigma)[..., None] + 1e-3
    fill = np.asarray(cv2.GaussianBlur(colours, (0, 0), sigma) / blurred, np.float32)
    fill = np.asarray(cv2.resize(fill, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray(density * kept + fill * rng.uniform(0.3, 1) * (1 - kept), np.float32)


def _noise(rng: np.random.Generator, sigma: float, amplitude: float) -> DensityPicture:
    """(CROP_PX, CROP_PX, 2) smooth noise with the given standard deviation, in pixels."""
    noise = rng.normal(0, 1, (CROP_PX, CROP_PX, 2)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma), np.float32)
    return smooth * np.float32(amplitude / (smooth.std() + 1e-6))


def _drawn_picture(density: npt.NDArray[np.floating]) -> RGBImage:
    return np.asarray(np.clip(WHITE * np.exp(-density), 0, 255), np.uint8)
