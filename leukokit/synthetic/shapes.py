"""Shapes and textures that drawn cells are made of: outlines, beaded nuclei, granules, band-limited noise.

Every coordinate is in pixels relative to a cell's own centre; a *signed distance* is negative inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Plane = npt.NDArray[np.float32]

_ANGLES = np.linspace(0.0, 2 * np.pi, 360, endpoint=False)


@dataclass(frozen=True, slots=True)
class Patch:
    """A square piece of the field around a cell, with the coordinates of its pixel centres.

    Attributes:
        left: column of the patch's first pixel in the field; may be negative.
        top: row of the patch's first pixel in the field; may be negative.
        x: (S, S) float32, pixels to the right of the cell's centre.
        y: (S, S) float32, pixels below the cell's centre.
    """

    left: int
    top: int
    x: Plane
    y: Plane

    @classmethod
    def around(cls, centre: tuple[float, float], reach: float) -> Patch:
        """The patch that holds every point within ``reach`` pixels of ``centre`` (x, y)."""
        left, top = (int(np.floor(c - reach)) for c in centre)
        side = int(np.ceil(2 * reach)) + 2
        # A pixel's centre lies half a pixel from its corner, where box coordinates are counted.
        steps = np.arange(side, dtype=np.float32) + 0.5
        x, y = np.meshgrid(steps + np.float32(left - centre[0]), steps + np.float32(top - centre[1]))
        return cls(left=left, top=top, x=x, y=y)


@dataclass(frozen=True, slots=True)
class Outline:
    """A star-shaped contour: ``radii`` is float64 (360,), pixels from the centre at each whole degree."""

    radii: npt.NDArray[np.float64]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        side: float,
        *,
        elongation: float = 1.0,
        roughness: float = 0.02,
        waves: range = range(2, 6),
    ) -> Outline:
        """An irregular ellipse whose bounding box has the geometric mean side ``side``, in pixels.

        Args:
            rng: source of the shape.
            side: square root of width times height of the bounding box.
            elongation: long axis over short axis.
            roughness: standard deviation of the radius, as a fraction of it.
            waves: how many bumps a turn; the higher ones are fainter.
        """
        tilt = rng.uniform(0, np.pi)
        stretch = np.sqrt(elongation)
        turned = _ANGLES - tilt
        radii = 1 / np.hypot(np.cos(turned) / stretch, np.sin(turned) * stretch)
        bumps = np.zeros_like(radii)
        for wave in waves:
            bumps += (
                rng.normal() / (wave - waves.start + 1) * np.cos(wave * _ANGLES + rng.uniform(0, 2 * np.pi))
            )
        return cls(radii * (1 + roughness * np.clip(bumps, -2.5, 2.5))).scaled_to(side)

    def scaled_to(self, side: float) -> Outline:
        """The same shape, its bounding box brought to the geometric mean side ``side``."""
        width, height = np.ptp(self.radii * np.cos(_ANGLES)), np.ptp(self.radii * np.sin(_ANGLES))
        return Outline(self.radii * side / np.sqrt(width * height))

    @property
    def reach(self) -> float:
        """Largest distance of the contour from the centre, in pixels."""
        return float(self.radii.max())

    def radius_at(self, x: Plane, y: Plane) -> Plane:
        """Radius of the contour, in pixels, in the direction of each point."""
        turn = np.degrees(np.arctan2(y, x)) % 360
        return np.asarray(
            np.interp(turn, np.arange(361), np.append(self.radii, self.radii[0])), dtype=np.float32
        )

    def distance(self, x: Plane, y: Plane) -> Plane:
        """Signed distance of each point from the contour, in pixels, to first order."""
        slope = np.gradient(np.append(self.radii, self.radii[0]), np.radians(1.0))[:-1] / self.radii
        turn = np.degrees(np.arctan2(y, x)) % 360
        steepness = np.interp(turn, np.arange(361), np.append(slope, slope[0]))
        return np.asarray(
            ((np.hypot(x, y) - self.radius_at(x, y)) / np.sqrt(1 + steepness**2)), dtype=np.float32
        )

    def pressed_by(self, offset: tuple[float, float], radius: float) -> Outline:
        """The outline yielding to a disc of ``radius`` pixels centred at ``offset`` (x, y) from it."""
        away = float(np.hypot(*offset))
        bearing = _ANGLES - np.arctan2(offset[1], offset[0])
        beside = away * np.sin(bearing)
        meets = (np.abs(beside) < radius) & (np.cos(bearing) > 0)
        reach = np.where(
            meets, away * np.cos(bearing) - np.sqrt(np.maximum(radius**2 - beside**2, 0)), np.inf
        )
        return Outline(np.minimum(self.radii, np.maximum(reach, 0.4 * self.radii)))


def smoothstep(low: float, high: float, value: Plane) -> Plane:
    """0 below ``low``, 1 above ``high``, a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def band_noise(rng: np.random.Generator, shape: tuple[int, int], fine: float, largest: float = 0.0) -> Plane:
    """Noise of mean 0 and deviation 1, its detail from ``fine`` to ``largest`` pixels, if that is given."""
    white = rng.standard_normal(shape, dtype=np.float32)
    noise = cv2.GaussianBlur(white, (0, 0), max(fine, 0.3), borderType=cv2.BORDER_REFLECT)
    if largest:
        noise = noise - cv2.GaussianBlur(white, (0, 0), largest, borderType=cv2.BORDER_REFLECT)
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), dtype=np.float32)


def ragged(rng: np.random.Generator, distance: Plane, unit: float, amount: float) -> Plane:
    """A signed distance whose contour is unsteady by ``amount`` erythrocyte diameters of ``unit`` pixels."""
    fine = band_noise(rng, (distance.shape[0], distance.shape[1]), 0.05 * unit)
    return np.asarray(distance + amount * unit * np.clip(fine, -2, 2), dtype=np.float32)


def beaded_distance(x: Plane, y: Plane, beads: npt.NDArray[np.float64]) -> Plane:
    """Signed distance from a string of discs, ``beads`` float64 (N, 3) of x, y, radius: a lobed nucleus."""
    distance = np.full(x.shape, np.inf, dtype=np.float32)
    for bead_x, bead_y, radius in beads.astype(np.float32):
        np.minimum(distance, np.hypot(x - bead_x, y - bead_y) - radius, out=distance)
    return distance


def string_of_beads(
    points: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Beads (N, 3) strung densely along a polyline (M, 2), their radii interpolated between its M points."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(2, int(np.ceil(along[-1] / max(0.35 * float(radii.min()), 1.0))))
    at = np.linspace(0, along[-1], min(count, 60))
    return np.stack([np.interp(at, along, track) for track in (points[:, 0], points[:, 1], radii)], axis=1)


def granules(
    rng: np.random.Generator, x: Plane, y: Plane, spacing: float, size: float, vacancy: float = 0.0
) -> tuple[Plane, Plane]:
    """Closely packed round granules.

    Args:
        rng: source of their places.
        x: (H, W) float32, as in ``Patch``.
        y: (H, W) float32.
        spacing: pixels from one granule to the next.
        size: radius of a granule in pixels.
        vacancy: fraction of the places left empty.

    Returns:
        cover: (H, W) float32, 0 between granules to 1 in one.
        shade: (H, W) float32, one number per granule, mean 0 and deviation 1.
    """
    reach = float(max(np.abs(x).max(), np.abs(y).max())) + spacing
    steps = np.arange(-reach, reach, spacing)
    grid_x, grid_y = np.meshgrid(steps, steps * np.sqrt(3) / 2)
    grid_x[1::2] += spacing / 2
    places = np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)
    places += rng.normal(0, 0.3 * spacing, places.shape)
    places = places[rng.random(len(places)) >= vacancy]
    shades = rng.standard_normal(len(places)).astype(np.float32)
    sizes = (size * rng.uniform(0.65, 1.3, len(places))).astype(np.float32)
    away, nearest = cKDTree(places).query(np.stack([x.ravel(), y.ravel()], axis=1))
    relative = away.astype(np.float32) / sizes[nearest]
    cover = 1 - smoothstep(0.4, 1.25, relative)
    return cover.reshape(x.shape), shades[nearest].reshape(x.shape)
