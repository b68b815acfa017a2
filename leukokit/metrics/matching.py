"""Detections matched with the cells they found, and the average precision of the match."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

IOU: Final = 0.5
"""Intersection over union from which a detection has found a cell."""


def match(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scores, best first, and whether each detection met a cell; see ``partners``."""
    order = np.argsort(-scores, kind="stable")
    return scores[order], partners(boxes, scores, truth)[order] >= 0


def partners(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Give every cell to the best-scored detection that overlaps it by ``IOU``, COCO's way.

    Args:
        boxes: (N, 4) xyxy detections.
        scores: (N,) their scores.
        truth: (M, 4) xyxy cells.

    Returns:
        (N,) int64, positions in ``truth``, each at most once; -1 for a detection that meets none.
    """
    met = np.full(len(boxes), -1, np.int64)
    overlaps = box_overlaps(boxes, truth)
    for number in np.argsort(-scores, kind="stable") if len(truth) else ():
        best = int(overlaps[number].argmax())
        if overlaps[number, best] >= IOU:
            met[number] = best
            overlaps[:, best] = 0.0
    return met


def average_precision(scores: npt.NDArray[np.float32], hits: npt.NDArray[np.bool_], truth: int) -> float:
    """Mean of the interpolated precision at 101 recalls, as COCO defines it; 0 where there is no cell."""
    if truth == 0:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    met = np.cumsum(hits[order])
    precision = met / np.arange(1, len(met) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(met / truth, np.linspace(0, 1, 101), side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(envelope))].mean())


def box_overlaps(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the intersection over union (N, M) of boxes (N, 4) and (M, 4), xyxy, float32."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), dtype=np.float32)
