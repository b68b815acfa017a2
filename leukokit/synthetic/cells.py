"""Drawn erythrocytes and platelets, each on its own patch of optical density (Beer-Lambert)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.synthetic.shapes import Outline, Patch, Plane, band_noise, granules, ragged, smoothstep

Centre = tuple[float, float]

ERYTHROCYTE_DENSITY = np.array([0.190, 0.375, 0.265], dtype=np.float32)
"""Optical density (natural log; red, green, blue) at the thick rim of an erythrocyte."""
BLUISH_DENSITY = np.array([0.255, 0.355, 0.200], dtype=np.float32)
"""The same of a young, polychromatic erythrocyte."""
PLATELET_DENSITY = np.array([0.30, 0.55, 0.12], dtype=np.float32)
PLATELET_GRANULE_DENSITY = np.array([0.65, 1.10, 0.22], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class DrawnCell:
    """One cell, drawn in optical density on a patch of the field.

    Attributes:
        kind: one of ``taxonomy.KINDS``.
        label: leukocyte class, empty for the other kinds.
        left: column of the patch's first pixel in the field; may be negative.
        top: row of the patch's first pixel in the field; may be negative.
        density: (H, W, 3) float32 optical density, natural log; red, green, blue.
        mask: (H, W) bool, the pixels inside the cell's outline.
    """

    kind: str
    label: str
    left: int
    top: int
    density: Plane
    mask: npt.NDArray[np.bool_]

    def box(self, width: int, height: int) -> tuple[Plane, float]:
        """Tight xyxy box of the mask clipped to a field, float32 (4,), and the mask's visible fraction."""
        rows, columns = np.nonzero(self.mask)
        rows, columns = rows + self.top, columns + self.left
        visible = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        if not visible.any():
            return np.zeros(4, dtype=np.float32), 0.0
        rows, columns = rows[visible], columns[visible]
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return np.array(corners, dtype=np.float32), float(visible.mean())

    def stamp(self, field_density: Plane) -> None:
        """Add the cell's optical density to a field's, (H, W, 3) float32, in place."""
        height, width = field_density.shape[:2]
        top, left = max(self.top, 0), max(self.left, 0)
        bottom = min(self.top + self.density.shape[0], height)
        right = min(self.left + self.density.shape[1], width)
        if top < bottom and left < right:
            field_density[top:bottom, left:right] += self.density[
                top - self.top : bottom - self.top, left - self.left : right - self.left
            ]


def finish(
    rng: np.random.Generator,
    patch: Patch,
    kind: str,
    label: str,
    density: Plane,
    distance: Plane,
    unit: float,
) -> DrawnCell:
    """Put a drawn cell slightly out of focus, as a cell a little above or below the focal plane is.

    Args:
        rng: source of the defocus.
        patch: where the cell lies.
        kind: one of ``taxonomy.KINDS``.
        label: leukocyte class or empty.
        density: (H, W, 3) float32 optical density.
        distance: (H, W) float32 signed distance from the cell's outline, pixels.
        unit: erythrocyte diameter in pixels, by which the blur scales.
    """
    blur = max(unit / 70 * (0.35 + 0.9 * rng.beta(1.3, 3.0)), 0.2)
    blurred = cv2.GaussianBlur(density.astype(np.float32), (0, 0), blur, borderType=cv2.BORDER_CONSTANT)
    return DrawnCell(kind, label, patch.left, patch.top, np.maximum(blurred, 0), distance < 0)


def erythrocyte_outline(rng: np.random.Generator, side: float) -> Outline:
    """The outline of an erythrocyte of ``side`` pixels: mostly a fair ellipse, some crenated or long."""
    form = rng.random()
    if form < 0.03:
        return Outline.draw(rng, side, elongation=1.05, roughness=0.022, waves=range(9, 14))
    if form < 0.12:
        return Outline.draw(rng, side, elongation=rng.uniform(1.25, 1.5), roughness=0.03)
    return Outline.draw(rng, side, elongation=rng.uniform(1.0, 1.2), roughness=rng.uniform(0.01, 0.036))


def draw_erythrocyte(rng: np.random.Generator, centre: Centre, outline: Outline, unit: float) -> DrawnCell:
    """Draw an erythrocyte: a biconcave disc, dense at the rim and pale in the middle.

    Args:
        rng: source of thickness, pallor and colour.
        centre: x, y in the field, pixels.
        outline: its shape.
        unit: erythrocyte diameter of the field, in pixels.
    """
    patch = Patch.around(centre, outline.reach + 0.06 * unit)
    distance = ragged(rng, outline.distance(patch.x, patch.y), unit, 0.006)
    inside = 1 - smoothstep(-0.022 * unit, 0.022 * unit, distance)
    thickness = rng.uniform(0.82, 1.14) * _biconcave_profile(rng, patch, outline, unit)
    tilt = rng.uniform(0, 2 * np.pi)
    lean = (np.cos(tilt) * patch.x + np.sin(tilt) * patch.y) / outline.reach
    texture = band_noise(rng, patch.x.shape, 0.03 * unit) + band_noise(rng, patch.x.shape, 0.12 * unit)
    thickness *= (1 + 0.09 * lean + 0.02 * texture) * inside
    bluish = float(np.clip(rng.normal(0.15, 0.18), 0, 0.9))
    colour = (1 - bluish) * ERYTHROCYTE_DENSITY + bluish * BLUISH_DENSITY
    return finish(rng, patch, "erythrocyte", "", thickness[..., None] * colour, distance, unit)


def _biconcave_profile(rng: np.random.Generator, patch: Patch, outline: Outline, unit: float) -> Plane:
    shift = rng.normal(0, 0.045, 2) * unit
    narrow, turn = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
    x, y = patch.x - np.float32(shift[0]), patch.y - np.float32(shift[1])
    wobble = 1 + 0.06 * band_noise(rng, x.shape, 0.13 * unit)
    radius = np.hypot(x, y) / outline.radius_at(x, y)
    # The dimple is seldom as round as the disc: stretched a little, and its rim wavers.
    across = np.abs(x * np.sin(turn) - y * np.cos(turn)) / np.maximum(np.hypot(x, y), 1e-3)
    dimple = (radius * wobble * (1 + (1 / narrow - 1) * across)).astype(np.float32)
    radius = radius.astype(np.float32)
    # Every disc thickens gently towards a ring at about three quarters of its radius ...
    profile = 0.93 + 0.07 * smoothstep(0.3, 0.75, radius) - 0.10 * smoothstep(0.8, 1.0, radius)
    # ... and most have a pale middle, wide and shallow or narrow and almost clear.
    pallor = float(np.clip(rng.beta(2.0, 1.6), 0.04, 0.84))
    inner = rng.uniform(-0.12, 0.30)
    outer = inner + rng.uniform(0.36, 0.66)
    # A thin line where the light bends at the rim.
    rim = np.exp(-(((radius - 0.94) / 0.045) ** 2))
    return np.asarray(
        (profile * (1 - pallor * (1 - smoothstep(inner, outer, dimple))) + 0.10 * rim), dtype=np.float32
    )


def draw_platelet(rng: np.random.Generator, centre: Centre, unit: float) -> DrawnCell:
    """Draw a platelet: a scrap of cytoplasm with purple granules, 15-25% of ``unit`` pixels across."""
    side = unit * rng.uniform(0.16, 0.25)
    outline = Outline.draw(rng, side, elongation=rng.uniform(1.0, 1.35), roughness=0.06)
    patch = Patch.around(centre, outline.reach + 0.05 * unit)
    distance = ragged(rng, outline.distance(patch.x, patch.y), unit, 0.012)
    inside = 1 - smoothstep(-0.02 * unit, 0.02 * unit, distance)
    grains, shade = granules(rng, patch.x, patch.y, 0.06 * unit, 0.035 * unit, vacancy=0.2)
    middle = 1 - smoothstep(-0.35 * side, 0.0, distance)
    mix = np.clip(grains * (0.45 + 0.55 * middle) * (1 + 0.25 * shade), 0, 1.2)[..., None]
    density = inside[..., None] * (PLATELET_DENSITY * (1 - mix) + PLATELET_GRANULE_DENSITY * mix)
    return finish(rng, patch, "platelet", "", density * rng.uniform(0.85, 1.1), distance, unit)
