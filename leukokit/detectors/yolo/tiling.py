"""A field cut into overlapping tiles, and the cells of the tiles joined, each counted once.

A cell belongs to the tile whose core holds its centre. The cores divide the field without overlap, and a
tile extends beyond its core by half the overlap, so that a cell no larger than the overlap lies whole in the
tile that it belongs to. Where two tiles place a cell on different sides of a core's edge, by a pixel, the
suppression that follows removes one of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.cells import Cells

SLACK_PX = 4.0
"""How far outside its core, in pixels of the field, a tile may still claim a cell's centre."""


@dataclass(frozen=True, slots=True)
class Tile:
    """``region`` is processed, the cells of ``core`` are kept: x1, y1, x2, y2 in whole pixels."""

    region: tuple[int, int, int, int]
    core: tuple[int, int, int, int]


def tiles_of(width: int, height: int, side: int, overlap: int) -> list[Tile]:
    """Return tiles of at most ``side`` pixels that cover a field; neighbours share at least ``overlap``.

    Raises:
        ValueError: the overlap is not smaller than the side.
    """
    if not 0 <= overlap < side:
        raise ValueError(f"overlap {overlap} must be at least 0 and smaller than the tile side {side}")
    columns, rows = _tile_spans(width, side, overlap), _tile_spans(height, side, overlap)
    return [
        Tile((left, top, right, bottom), (core_left, core_top, core_right, core_bottom))
        for (top, bottom), (core_top, core_bottom) in rows
        for (left, right), (core_left, core_right) in columns
    ]


def in_core(tile: Tile, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return (N,) bool: which of the boxes, in pixels of the field, have their centre in the tile's core."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = np.array(tile.core[:2]) - SLACK_PX, np.array(tile.core[2:]) + SLACK_PX
    return np.asarray(((centres >= low) & (centres < high)).all(axis=1), dtype=np.bool_)


def suppress_overlaps(cells: Cells, same_kind: float, any_kind: float) -> Cells:
    """Suppress all but the best of overlapping cells, greedily; the survivors are in the order of scores.

    Args:
        cells: candidates.
        same_kind: largest intersection over union of two cells of one kind.
        any_kind: largest intersection over union of any two cells: one cell is not of two kinds.
    """
    # OpenCV's, because torchvision's costs more than a second to import.
    for kinds, overlap in ((cells.kinds, same_kind), (np.zeros_like(cells.kinds), any_kind)):
        if len(cells) == 0:
            break
        corners = cells.boxes.astype(np.float64)
        corners[:, 2:] -= corners[:, :2]
        kept = cv2.dnn.NMSBoxesBatched(
            corners.tolist(),
            cells.scores.tolist(),
            kinds[: len(cells)].astype(np.int32).tolist(),
            -1.0,
            overlap,
        )
        cells = cells[np.asarray(kept, dtype=np.int64)]
    return cells


def suppress_enclosing(cells: Cells, kind: int, share: float) -> Cells:
    """Drop a cell that encloses two others of its kind with better scores: it is the two taken for one.

    It overlaps each of them too little for ``suppress_overlaps``, and would be counted as a third cell.

    Args:
        cells: best score first.
        kind: number of the kind to which the rule applies.
        share: smallest share of a cell's box that lies within the enclosing box.
    """
    numbers = np.flatnonzero(cells.kinds == kind)
    boxes, keep = cells.boxes[numbers], np.ones(len(cells), dtype=bool)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for place, number in enumerate(numbers):
        low = np.maximum(boxes[place, :2], boxes[:place, :2])
        high = np.minimum(boxes[place, 2:], boxes[:place, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        keep[number] = (shared > share * areas[:place])[keep[numbers[:place]]].sum() < 2
    return cells[keep]


def _tile_spans(length: int, side: int, overlap: int) -> Sequence[tuple[tuple[int, int], tuple[int, int]]]:
    if length <= side:
        return [((0, length), (0, length))]
    count = -(-(length - overlap) // (side - overlap))
    starts = np.linspace(0, length - side, count).round().astype(int).tolist()
    cuts = [0, *((starts[i] + side + starts[i + 1]) // 2 for i in range(count - 1)), length]
    return [((start, start + side), (cuts[i], cuts[i + 1])) for i, start in enumerate(starts)]
