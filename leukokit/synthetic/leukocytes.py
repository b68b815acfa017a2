"""Drawn leukocytes of the five classes, each on its own patch of optical density (Beer-Lambert)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leukokit.synthetic.cells import Centre, DrawnCell, finish
from leukokit.synthetic.shapes import (
    Outline,
    Patch,
    Plane,
    band_noise,
    beaded_distance,
    granules,
    ragged,
    smoothstep,
    string_of_beads,
)

Beads = npt.NDArray[np.float64]

DIAMETERS: Final[dict[str, tuple[float, float]]] = {
    "neutrophil": (2.0, 2.15),
    "lymphocyte": (1.5, 1.6),
    "monocyte": (2.3, 2.5),
    "eosinophil": (2.0, 2.2),
    "basophil": (1.8, 2.3),
}
"""Usual range of the box side of each leukocyte class, in erythrocyte diameters."""

CHROMATIN_DENSE = np.array([1.27, 2.00, 0.52], dtype=np.float32)
"""Optical density (natural log; red, green, blue) of condensed chromatin ..."""
CHROMATIN_LOOSE = np.array([0.72, 1.15, 0.27], dtype=np.float32)
"""... and of the paler chromatin between."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """What drawing a leukocyte's parts needs to know: the patch, the outline and the scale."""

    rng: np.random.Generator
    patch: Patch
    distance: Plane
    radius: float
    unit: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.distance.shape[0], self.distance.shape[1]

    def warped(self, amount: float) -> tuple[Plane, Plane]:
        """The patch's coordinates, bent by about ``amount`` radii, so that no contour is a circle."""
        bend = amount * self.radius
        x = self.patch.x + bend * band_noise(self.rng, self.shape, 0.18 * self.radius)
        y = self.patch.y + bend * band_noise(self.rng, self.shape, 0.18 * self.radius)
        return x.astype(np.float32), y.astype(np.float32)


def draw_leukocyte(
    rng: np.random.Generator, label: str, centre: Centre, side: float, unit: float
) -> DrawnCell:
    """Draw a leukocyte.

    Args:
        rng: source of its shape and texture.
        label: one of ``taxonomy.LEUKOCYTE_CLASSES``.
        centre: x, y in the field, pixels.
        side: geometric mean side of its box, pixels; ``DIAMETERS`` gives the usual range.
        unit: erythrocyte diameter of the field, in pixels.
    """
    rough = 0.034 if label == "monocyte" else 0.02
    outline = Outline.draw(rng, side, elongation=rng.uniform(1.0, 1.18), roughness=rough, waves=range(2, 8))
    patch = Patch.around(centre, outline.reach + 0.06 * unit)
    distance = ragged(rng, outline.distance(patch.x, patch.y), unit, 0.009)
    cell = _Cell(rng, patch, distance, side / 2, unit)
    cytoplasm, nucleus, chromatin = _PARTS[label](cell)
    # The nucleus stays inside the cell, and its membrane is a little softer than the optics alone make it.
    nucleus = np.maximum(ragged(rng, nucleus, unit, 0.009), cell.distance + 0.03 * cell.radius)
    soft = 0.022 * unit
    within = (1 - smoothstep(-soft, soft, nucleus))[..., None]
    inside = (1 - smoothstep(-soft, soft, cell.distance))[..., None]
    membrane = np.exp(-(((cell.distance + 0.02 * unit) / (0.018 * unit)) ** 2))[..., None]
    density = inside * (cytoplasm * (1 - within) * (1 + 0.30 * membrane) + chromatin * within)
    if label == "basophil":
        density += inside * _covering_granules(cell)
    return finish(rng, patch, "leukocyte", label, density * rng.uniform(0.93, 1.06), cell.distance, unit)


def _chromatin(cell: _Cell, nucleus: Plane, *, clump: float, loose: float) -> Plane:
    """Optical density of chromatin, clumped at ``clump`` radii, with a ``loose`` share of paler gaps."""
    size = clump * cell.radius
    noise = band_noise(cell.rng, cell.shape, size, 2.6 * size)
    # Chromatin is condensed against the nuclear membrane, so the gaps keep clear of it.
    deep = smoothstep(0.0, 0.07 * cell.radius, -nucleus)
    threshold = 1.5 - 2.6 * loose
    gaps = (smoothstep(threshold - 0.8, threshold + 1.0, noise) * deep)[..., None]
    cloud = 0.08 * band_noise(cell.rng, cell.shape, 0.15 * cell.radius)
    cloud += 0.06 * band_noise(cell.rng, cell.shape, 0.018 * cell.unit)
    density: Plane = (CHROMATIN_DENSE * (1 - gaps) + CHROMATIN_LOOSE * gaps) * (1 + cloud[..., None])
    return density


def _polar(radius: float, angle: float) -> npt.NDArray[np.float64]:
    return np.array([radius * np.cos(angle), radius * np.sin(angle)])


def _lobes(
    cell: _Cell, places: list[npt.NDArray[np.float64]], sizes: list[float], length: float, strand: float
) -> Beads:
    """Lobes at ``places`` (x, y) of ``sizes`` pixels, drawn out along the chain, and the strands between."""
    pieces: list[Beads] = []
    previous_end: npt.NDArray[np.float64] | None = None
    for number, (place, size) in enumerate(zip(places, sizes, strict=True)):
        before, after = places[max(number - 1, 0)], places[min(number + 1, len(places) - 1)]
        course = np.arctan2(*(after - before)[::-1]) + cell.rng.normal(0, 0.45)
        half = length * size * cell.rng.uniform(0.6, 1.2) * _polar(1.0, course)
        bulge = size * np.array([0.92, 1.0, cell.rng.uniform(0.85, 1.0)])
        pieces.append(string_of_beads(np.stack([place - half, place, place + half]), bulge))
        if previous_end is not None:
            pieces.append(string_of_beads(np.stack([previous_end, place - half]), np.full(2, strand)))
        previous_end = place + half
    return np.concatenate(pieces)


def _neutrophil(cell: _Cell) -> tuple[Plane, Plane, Plane]:
    rng, radius = cell.rng, cell.radius
    count = int(rng.choice([3, 4, 5], p=[0.5, 0.35, 0.15]))
    step = {3: rng.uniform(1.55, 1.9), 4: rng.uniform(1.2, 1.4), 5: rng.uniform(1.0, 1.12)}[count]
    start = rng.uniform(0, 2 * np.pi)
    shift = _polar(rng.uniform(0, 0.1) * radius, rng.uniform(0, 2 * np.pi))
    places = [
        shift + _polar(rng.uniform(0.36, 0.50) * radius, start + number * step + rng.normal(0, 0.08))
        for number in range(count)
    ]
    size = {3: 0.275, 4: 0.235, 5: 0.205}[count] * radius
    sizes = [size * rng.uniform(0.88, 1.14) for _ in places]
    beads = _lobes(cell, places, sizes, 0.55, 0.04 * radius)
    nucleus = beaded_distance(*cell.warped(0.028), beads)
    cloud = band_noise(rng, cell.shape, 0.12 * radius)
    grains, shade = granules(
        rng, cell.patch.x, cell.patch.y, 0.05 * cell.unit, 0.02 * cell.unit, vacancy=0.25
    )
    strength = (grains * np.clip(0.45 + 0.75 * shade, 0, 2.4))[..., None]
    base = np.array([0.10, 0.20, 0.075]) * (1 + 0.22 * cloud[..., None])
    cytoplasm = base + strength * np.array([0.14, 0.23, 0.045])
    return cytoplasm.astype(np.float32), nucleus, _chromatin(cell, nucleus, clump=0.036, loose=0.46)


def _lymphocyte(cell: _Cell) -> tuple[Plane, Plane, Plane]:
    rng, radius = cell.rng, cell.radius
    share = rng.uniform(0.80, 0.88)
    outline = Outline.draw(rng, 2 * share * radius, elongation=rng.uniform(1.0, 1.14), roughness=0.022)
    shift = _polar((1 - share) * rng.uniform(0.2, 0.75) * radius, rng.uniform(0, 2 * np.pi))
    x, y = cell.warped(0.012)
    nucleus = outline.distance(x - np.float32(shift[0]), y - np.float32(shift[1]))
    cloud = 0.12 * band_noise(rng, cell.shape, 0.03 * cell.unit) + 0.2 * band_noise(
        rng, cell.shape, 0.14 * radius
    )
    cytoplasm = np.array([0.36, 0.29, 0.085]) * (1 + cloud[..., None])
    return cytoplasm.astype(np.float32), nucleus, _chromatin(cell, nucleus, clump=0.058, loose=0.38)


def _monocyte(cell: _Cell) -> tuple[Plane, Plane, Plane]:
    rng, radius = cell.rng, cell.radius
    # A thick arc: short and fat it is a kidney, long and slim a horseshoe.
    spread = rng.uniform(1.7, 3.6)
    thickness = (0.50 - 0.06 * spread) * radius
    bend = rng.uniform(0.33, 0.40) * radius
    turns = np.linspace(-spread / 2, spread / 2, 25) + rng.uniform(0, 2 * np.pi)
    ends = np.linspace(-1, 1, 25)
    centre = _polar(-0.35 * bend * max(0.0, 1.6 - spread / 2.2), float(turns[12]))
    arc = centre + bend * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    swell = thickness * (1 + rng.uniform(-0.05, 0.14) * ends**2 + rng.uniform(-0.12, 0.12) * ends)
    nucleus = beaded_distance(*cell.warped(0.045), string_of_beads(arc, swell))
    cloud = 0.13 * band_noise(rng, cell.shape, 0.026 * cell.unit) + 0.15 * band_noise(
        rng, cell.shape, 0.16 * radius
    )
    dust = np.maximum(band_noise(rng, cell.shape, 0.016 * cell.unit, 0.06 * cell.unit) - 0.8, 0)
    cytoplasm = np.array([0.31, 0.33, 0.125]) * (1 + cloud[..., None])
    cytoplasm = cytoplasm + dust[..., None] * np.array([0.06, 0.13, 0.03])
    for _ in range(int(rng.integers(3, 8))):
        at = _polar(rng.uniform(0.35, 0.9) * radius, rng.uniform(0, 2 * np.pi))
        size = rng.uniform(0.035, 0.075) * radius
        hollow = np.hypot(cell.patch.x - at[0], cell.patch.y - at[1]).astype(np.float32)
        cytoplasm = cytoplasm * (0.2 + 0.8 * smoothstep(0.6 * size, 1.25 * size, hollow))[..., None]
    chromatin = _chromatin(cell, nucleus, clump=0.026, loose=0.56) * np.float32(0.88)
    return cytoplasm.astype(np.float32), nucleus, chromatin


def _eosinophil(cell: _Cell) -> tuple[Plane, Plane, Plane]:
    rng, radius = cell.rng, cell.radius
    start, step = rng.uniform(0, 2 * np.pi), rng.uniform(1.75, 2.3)
    places = [_polar(rng.uniform(0.46, 0.56) * radius, start + number * step) for number in range(2)]
    beads = _lobes(cell, places, [radius * rng.uniform(0.29, 0.34) for _ in places], 0.6, 0.06 * radius)
    nucleus = beaded_distance(*cell.warped(0.025), beads)
    cover, shade = granules(
        rng, cell.patch.x, cell.patch.y, 0.082 * cell.unit, 0.047 * cell.unit, vacancy=0.06
    )
    cloud = 0.22 * band_noise(rng, cell.shape, 0.14 * radius)
    mix = (cover * np.clip(0.9 + 0.22 * shade + cloud, 0.2, 1.5))[..., None]
    # The outermost rim is nearly free of granules.
    mix = mix * (0.15 + 0.85 * smoothstep(0.01 * cell.unit, 0.06 * cell.unit, -cell.distance))[..., None]
    cytoplasm = np.array([0.19, 0.42, 0.36]) * (1 - mix) + np.array([0.24, 0.73, 0.72]) * mix
    return cytoplasm.astype(np.float32), nucleus, _chromatin(cell, nucleus, clump=0.038, loose=0.48)


def _basophil(cell: _Cell) -> tuple[Plane, Plane, Plane]:
    rng, radius = cell.rng, cell.radius
    start, step = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 2.4)
    places = [_polar(rng.uniform(0.22, 0.34) * radius, start + number * step) for number in range(2)]
    beads = _lobes(cell, places, [radius * rng.uniform(0.40, 0.48) for _ in places], 0.4, 0.3 * radius)
    nucleus = beaded_distance(*cell.warped(0.05), beads)
    cloud = band_noise(rng, cell.shape, 0.1 * radius)[..., None]
    cytoplasm = np.array([0.22, 0.33, 0.085]) * (1 + 0.2 * cloud)
    chromatin = _chromatin(cell, nucleus, clump=0.06, loose=0.45) * np.float32(0.68)
    return cytoplasm.astype(np.float32), nucleus, chromatin


def _covering_granules(cell: _Cell) -> Plane:
    """Two layers of granules of unlike size, thinner towards the rim: some merge and some lie alone."""
    thin = 0.55 + 0.45 * smoothstep(0.0, 0.45 * cell.radius, -cell.distance)
    strength = np.zeros(cell.shape, dtype=np.float32)
    for spacing, size, vacancy in ((0.12, 0.064, 0.34), (0.085, 0.042, 0.40)):
        cover, shade = granules(
            cell.rng, cell.patch.x, cell.patch.y, spacing * cell.unit, size * cell.unit, vacancy
        )
        strength = np.maximum(strength, cover * np.clip(0.85 + 0.35 * shade, 0.2, 1.5))
    return np.asarray((strength * thin)[..., None] * np.array([0.62, 1.02, 0.21]), dtype=np.float32)


_PARTS: Final = {
    "neutrophil": _neutrophil,
    "lymphocyte": _lymphocyte,
    "monocyte": _monocyte,
    "eosinophil": _eosinophil,
    "basophil": _basophil,
}
"""For each class, what draws cytoplasm (H, W, 3), nuclear distance (H, W) and chromatin (H, W, 3)."""
