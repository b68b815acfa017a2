"""What YOLO networks answer with: a column for every place where they look for a cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def to_corners(output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """YOLO's (B, 4 + K, A) with centre, width and height to (B, A, 4 + K) with xyxy."""
    anchors = output.transpose(0, 2, 1).copy()
    half = anchors[..., 2:4] / 2
    anchors[..., 2:4] = anchors[..., :2] + half
    anchors[..., :2] -= half
    return anchors
