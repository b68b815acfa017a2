"""Where the cells of a drawn smear lie: leukocytes apart, erythrocytes around them, platelets between."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from leukokit.errors import DataError
from leukokit.synthetic.cells import (
    Centre,
    DrawnCell,
    draw_erythrocyte,
    draw_platelet,
    erythrocyte_outline,
)
from leukokit.synthetic.leukocytes import DIAMETERS, draw_leukocyte
from leukokit.synthetic.shapes import Plane, band_noise
from leukokit.taxonomy import LEUKOCYTE_CLASSES

DIFFERENTIAL = np.array([0.55, 0.33, 0.07, 0.04, 0.01])
"""Share of each class, in the order of ``LEUKOCYTE_CLASSES``, among the leukocytes beyond the first five."""
COVERAGE = 0.40
"""Share of the area free of leukocytes that erythrocytes would cover if none overlapped."""


@dataclass(slots=True)
class Layout:
    """The discs that are taken so far; ``centres`` in pixels of the field.

    Attributes:
        width: of the field, pixels.
        height: of the field, pixels.
        unit: erythrocyte diameter, pixels.
    """

    width: int
    height: int
    unit: float
    centres: list[Centre] = field(default_factory=list)
    radii: list[float] = field(default_factory=list)

    def clearances(
        self, centre: Centre, radius: float, among: slice = slice(None)
    ) -> npt.NDArray[np.float64]:
        """Distances to some of the taken discs over the sum of radii, nearest first, then twice infinity.

        1 touches, below 1 overlaps.
        """
        there = np.asarray(self.centres[among], dtype=np.float64).reshape(-1, 2)
        away = np.hypot(there[:, 0] - centre[0], there[:, 1] - centre[1])
        relative = np.sort(away / (np.asarray(self.radii[among], dtype=np.float64) + radius))
        return np.append(relative, [np.inf, np.inf])

    def take(self, centre: Centre, radius: float) -> None:
        """Mark a disc as taken."""
        self.centres.append(centre)
        self.radii.append(radius)


def draw_leukocytes(rng: np.random.Generator, layout: Layout, count: int) -> list[DrawnCell]:
    """Place ``count`` leukocytes wholly inside the field and apart, every class among the first five.

    Raises:
        DataError: they do not fit.
    """
    labels = list(LEUKOCYTE_CLASSES[:count])
    labels += [str(rng.choice(LEUKOCYTE_CLASSES, p=DIFFERENTIAL)) for _ in range(count - len(labels))]
    sides = [rng.uniform(*DIAMETERS[label]) * layout.unit for label in labels]
    # Large cells first: the small ones then fit between.
    order = np.argsort(sides)[::-1]
    places = _leukocyte_places(rng, layout, np.asarray(sides)[order] / 2)
    cells = []
    for number, place in zip(order, places, strict=True):
        layout.take(place, sides[number] / 2)
        cells.append(draw_leukocyte(rng, labels[number], place, sides[number], layout.unit))
    return cells


def _leukocyte_places(
    rng: np.random.Generator, layout: Layout, radii: npt.NDArray[np.float64]
) -> list[Centre]:
    size = np.array([layout.width, layout.height])
    for _ in range(12):
        trial = Layout(layout.width, layout.height, layout.unit)
        for radius in radii:
            # An elongated, rough outline reaches a little further than the disc of the same box side.
            margin = 1.15 * radius + 2
            if (size <= 2 * margin).any():
                break
            found = [
                (float(x), float(y))
                for x, y in rng.uniform(margin, size - margin, (60, 2))
                if trial.clearances((x, y), float(radius))[0] > 1.2
            ]
            if not found:
                break
            # The roomiest of the first few: leukocytes lie scattered, not heaped.
            best = max(found[:4], key=lambda place: trial.clearances(place, float(radius))[0])
            trial.take(best, float(radius))
        if len(trial.centres) == len(radii):
            return trial.centres
    raise DataError(
        f"drawn smear: {len(radii)} leukocytes do not fit in {layout.width} x {layout.height} px at an "
        f"erythrocyte diameter of {layout.unit:g} px; ask for fewer, a larger field or a smaller diameter"
    )


def draw_erythrocytes(rng: np.random.Generator, layout: Layout) -> list[DrawnCell]:
    """Fill the field with erythrocytes, some touching or overlapping, pushed aside by the leukocytes."""
    leukocytes = len(layout.centres)
    free = layout.width * layout.height - np.pi * float(np.square(layout.radii).sum())
    # Those at the border lie in the field by half only, on average.
    border = (1 + layout.unit / layout.width) * (1 + layout.unit / layout.height)
    wanted = round(COVERAGE * max(free, 0.0) * border / (np.pi / 4 * layout.unit**2))
    crowding = _crowding(rng, layout)
    cells: list[DrawnCell] = []
    for _ in range(60 * wanted):
        if len(cells) == wanted:
            break
        side = layout.unit * float(np.clip(rng.normal(1.0, 0.065), 0.82, 1.18))
        place = _erythrocyte_place(rng, layout, leukocytes, side / 2, crowding)
        if place is None:
            continue
        outline = erythrocyte_outline(rng, side)
        for (x, y), radius in zip(layout.centres[:leukocytes], layout.radii[:leukocytes], strict=True):
            outline = outline.pressed_by((x - place[0], y - place[1]), 1.035 * radius)
        layout.take(place, side / 2)
        cells.append(draw_erythrocyte(rng, place, outline, layout.unit))
    return cells


def _crowding(rng: np.random.Generator, layout: Layout) -> Plane:
    """Chance that an erythrocyte settles, float32, a value for 8 x 8 pixels: open and crowded areas."""
    shape = (layout.height // 8 + 1, layout.width // 8 + 1)
    noise = band_noise(rng, shape, 1.3 * layout.unit / 8)
    return np.asarray(np.clip(0.55 + 0.55 * noise, 0.0, 1.0), dtype=np.float32)


def _erythrocyte_place(
    rng: np.random.Generator, layout: Layout, leukocytes: int, radius: float, crowding: Plane
) -> Centre | None:
    """A place for one more erythrocyte: on its own, or beside or over another; None: try again."""
    beside = len(layout.centres) > leukocytes and rng.random() < 0.45
    allowed = 1.03
    if beside:
        other = int(rng.integers(leukocytes, len(layout.centres)))
        closeness = rng.uniform(0.58, 0.9) if rng.random() < 0.2 else rng.uniform(0.95, 1.06)
        away = closeness * (radius + layout.radii[other])
        turn = rng.uniform(0, 2 * np.pi)
        x, y = layout.centres[other]
        place = (float(x + away * np.cos(turn)), float(y + away * np.sin(turn)))
        allowed = min(closeness, 0.97)
    else:
        x, y = rng.uniform(-radius, [layout.width + radius, layout.height + radius])
        place = (float(x), float(y))
    inside = -radius < place[0] < layout.width + radius and -radius < place[1] < layout.height + radius
    row = int(np.clip(place[1], 0, layout.height - 1)) // 8
    column = int(np.clip(place[0], 0, layout.width - 1)) // 8
    if not inside or rng.random() > crowding[row, column] + (0.25 if beside else 0.0):
        return None
    nearest, second = layout.clearances(place, radius, slice(leukocytes, None))[:2]
    # Over its partner it must not lie over a third one too.
    if nearest < allowed - 1e-6 or second < 0.93:
        return None
    if layout.clearances(place, radius, slice(leukocytes))[0] < 0.93:
        return None
    return place


def draw_platelets(rng: np.random.Generator, layout: Layout) -> list[DrawnCell]:
    """Scatter platelets over the gaps, 10 to 20 in a field of 23 by 17 erythrocyte diameters."""
    usual = 1600 * 1200 / 70**2
    share = layout.width * layout.height / layout.unit**2 / usual
    wanted = max(1, round(int(rng.integers(12, 20)) * share))
    radius = 0.13 * layout.unit
    cells: list[DrawnCell] = []
    for _ in range(400 * wanted):
        if len(cells) == wanted:
            break
        x, y = rng.uniform(2 * radius, [layout.width - 2 * radius, layout.height - 2 * radius])
        place = (float(x), float(y))
        if layout.clearances(place, 1.3 * radius)[0] > 1.0:
            layout.take(place, radius)
            cells.append(draw_platelet(rng, place, layout.unit))
    return cells
