"""Inputs of the checks: drawn smears, and arrangements of cells that often break code."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from leukokit.cells import Cells, Labelling
from leukokit.graph import CellGraph
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.synthetic.smear import SyntheticSmear, draw_smear
from leukokit.taxonomy import ERYTHROCYTE, KINDS, LEUKOCYTE, LEUKOCYTE_CLASSES, PLATELET

WIDTH: Final = 480
HEIGHT: Final = 360
DIAMETER: Final = 40.0
"""Usual erythrocyte diameter of the drawn smears, pixels."""


@cache
def _drawn_smear(seed: int) -> SyntheticSmear:
    return draw_smear(seed, WIDTH, HEIGHT, leukocytes=4, erythrocyte_diameter_px=DIAMETER)


def smear(seed: int = 1, path: str = "field.png") -> Smear:
    """A drawn field of view, 480 x 360 pixels, with four leukocytes; the pixels are a copy."""
    return Smear.from_array(_drawn_smear(seed).image.copy(), Path(path))


def standardized(seed: int = 1) -> Smear:
    """The same with its light and stain measured, as a pipeline passes it on."""
    from leukokit.images.standardize import estimate_standardization

    plain = smear(seed)
    return replace(plain, standardization=estimate_standardization(plain.image))


def odd_smears() -> dict[str, Smear]:
    """Fields without a cell to find, and of sizes that no microscope has."""
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    images = {
        "one pixel": np.full((1, 1, 3), 240, np.uint8),
        "one row": np.full((1, 300, 3), 240, np.uint8),
        "one column": np.full((300, 1, 3), 240, np.uint8),
        "white": np.full((120, 160, 3), 255, np.uint8),
        "black": np.zeros((120, 160, 3), np.uint8),
        "noise": noise,
    }
    return {name: Smear.from_array(image, Path("odd.png")) for name, image in images.items()}


def true_cells(seed: int = 1) -> Cells:
    """All cells of a drawn field, as a perfect detector would find them."""
    drawn = _drawn_smear(seed)
    kinds = np.array([KINDS.index(kind) for kind in drawn.kinds], np.int64)
    return Cells(drawn.boxes.copy(), kinds, np.full(len(kinds), 0.9, np.float32))


def _at(points: list[tuple[float, float]], kinds: list[int] | None = None, side: float = 40.0) -> Cells:
    middle = np.array(points, np.float32).reshape(-1, 2)
    boxes = np.concatenate([middle - side / 2, middle + side / 2], axis=1)
    count = len(middle)
    # Every other cell a leukocyte, so that few cells hold both.
    chosen = [LEUKOCYTE if number % 2 == 0 else ERYTHROCYTE for number in range(count)]
    return Cells(boxes, np.array(kinds or chosen, np.int64), np.full(count, 0.8, np.float32))


def arrangements() -> dict[str, Cells]:
    """Cells on a field of 480 x 360 pixels, by what is unusual about them."""
    corners = [(100.0, 100.0), (180.0, 110.0), (140.0, 190.0)]
    line = [(60.0 + 50 * number, 60.0 + 25 * number) for number in range(7)]
    spot = [(200.0, 150.0)] * 5
    rng = np.random.default_rng(5)
    crowd = rng.uniform((20, 20), (WIDTH - 20, HEIGHT - 20), (300, 2))
    outside = Cells(
        np.array([[-30, -20, 15, 25], [460, 340, 520, 400], [-50, -50, 530, 410], [600, 500, 640, 540]]),
        np.array([LEUKOCYTE, LEUKOCYTE, LEUKOCYTE, LEUKOCYTE]),
        np.full(4, 0.5),
    )
    return {
        "no cell": Cells.empty(),
        "one cell": _at(corners[:1]),
        "two cells": _at(corners[:2]),
        "three cells": _at(corners),
        "cells on a line": _at(line),
        "cells on a vertical line": _at([(90.0, 30.0 + 45 * number) for number in range(7)]),
        "cells on a grid": _at([(60.0 * x, 60.0 * y) for x in range(1, 6) for y in range(1, 5)]),
        "cells on one spot": _coincident(spot),
        "the same cell several times": _at([*spot, *corners, *corners], side=36),
        "cells without a size": _at([*corners, (220.0, 220.0)], side=0),
        "leukocytes only": _at(line, [LEUKOCYTE] * len(line)),
        "no leukocyte": _at(line, [ERYTHROCYTE, PLATELET] * 3 + [ERYTHROCYTE]),
        "cells beyond the border": outside,
        "300 cells": _at([(float(x), float(y)) for x, y in crowd]),
    }


def _coincident(points: list[tuple[float, float]]) -> Cells:
    cells = _at(points)
    grown = np.arange(len(points), dtype=np.float32)[:, None] * np.array([-1, -1, 1, 1], np.float32)
    return Cells(cells.boxes + grown, cells.kinds, cells.scores)


def neighbours(cells: Cells) -> CellGraph:
    """A graph that links each cell to the two that follow it."""
    count = len(cells)
    pairs = [(i, j) for i in range(count) for j in (i + 1, i + 2) if j < count]
    return CellGraph(cells, np.array(pairs, np.int64).reshape(-1, 2).T)


def labelled(cells: Cells) -> Cells:
    """The cells with made-up labels; one leukocyte is unclassified."""
    probabilities = np.zeros((len(cells), len(LEUKOCYTE_CLASSES)), np.float32)
    for number, node in enumerate(np.flatnonzero(cells.kinds == LEUKOCYTE)):
        probabilities[node] = 0.05
        probabilities[node, number % len(LEUKOCYTE_CLASSES)] = 0.8
        if number == 0:
            probabilities[node] = 1 / len(LEUKOCYTE_CLASSES)
    return cells.with_labelling(Labelling(probabilities, LEUKOCYTE_CLASSES, 0.5))


def result(cells: Cells, stem: str = "field", seed: int = 1) -> SmearResult:
    """The result for one drawn field."""
    provenance = {"leukokit": "test", "device": "cpu"}
    picture = smear(seed, f"{stem}.png")
    return SmearResult(picture, cells, Path(stem), provenance, 0.5, neighbours(cells))


def same(first: npt.ArrayLike, second: npt.ArrayLike, tolerance: float = 0.0) -> bool:
    """Whether two arrays have the same shape and equal values within ``tolerance``."""
    one, two = np.asarray(first), np.asarray(second)
    return one.shape == two.shape and bool(np.allclose(one, two, rtol=0, atol=tolerance, equal_nan=True))


def same_cells(first: Cells, second: Cells, tolerance: float = 0.0) -> bool:
    """Whether both hold the same cells in the same order; ``tolerance`` in pixels."""
    return (
        same(first.boxes, second.boxes, tolerance)
        and same(first.kinds, second.kinds)
        and same(first.scores, second.scores, tolerance)
    )
