"""Pictures of single cells, cut from a smear at a chosen size and in the reference light and stain."""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, Cells
from leukokit.images.pixels import RGBImage, resize_image
from leukokit.images.standardize import WHITE
from leukokit.smear import Smear

CropUnit = Literal["box", "erythrocyte"]
REACH: Final = 2.4
"""Side of the largest crop, in longer sides of the cell's box."""


def crop_sides(
    cells: Cells, nodes: npt.NDArray[np.int64], cover: float, unit: CropUnit
) -> npt.NDArray[np.float32]:
    """Return the sides of the crops that show cells to a classifier.

    Args:
        cells: all cells of the field.
        nodes: (M,) int64, numbers of the cells to cut.
        cover: side of a crop in units.
        unit: ``box``, the longer side of the cell's own box: all cells fill their crops alike. Or
            ``erythrocyte``, the diameter that a leukocyte usually has beside the field's erythrocytes: a
            large cell fills more of its crop than a small one, but is whole in it.

    Returns:
        (M,) float32, pixels of the original image.
    """
    boxes = cells.boxes[nodes]
    longest = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
    if unit == "erythrocyte" and cells.ruler_px:
        usual = cover * LEUKOCYTE_TO_ERYTHROCYTE * cells.ruler_px
        return np.asarray(np.clip(usual, longest, REACH * longest), np.float32)
    return np.asarray(cover * longest, np.float32)


def cut_crop(smear: Smear, centre: tuple[float, float], side: float, px: int) -> RGBImage:
    """Cut a square around a point of a field, standardised as the field says.

    Args:
        smear: the field of view.
        centre: x, y in pixels of the original image.
        side: length of the square's side in pixels of the original image.
        px: side of the result in pixels.

    Returns:
        RGB uint8 (px, px, 3); what lies outside the image is white.
    """
    length = max(1, round(side))
    left, top = round(centre[0] - length / 2), round(centre[1] - length / 2)
    x1, x2 = (int(np.clip(x, 0, smear.width)) for x in (left, left + length))
    y1, y2 = (int(np.clip(y, 0, smear.height)) for y in (top, top + length))
    out = np.full((px, px, 3), int(WHITE), dtype=np.uint8)
    factor = px / length
    # Borders are rounded on the crop's own grid, so that the part inside fills exactly its share.
    u1, u2 = round((x1 - left) * factor), round((x2 - left) * factor)
    v1, v2 = round((y1 - top) * factor), round((y2 - top) * factor)
    if x2 <= x1 or y2 <= y1 or u2 <= u1 or v2 <= v1:
        return out
    part = resize_image(np.ascontiguousarray(smear.image[y1:y2, x1:x2]), u2 - u1, v2 - v1)
    if smear.standardization is not None:
        extent = (x1 / smear.width, y1 / smear.height, x2 / smear.width, y2 / smear.height)
        part = smear.standardization.apply(part, extent)
    out[v1:v2, u1:u2] = part
    return out


def cut_crops(
    smear: Smear, boxes: npt.NDArray[np.float32], sides: npt.NDArray[np.float32], px: int
) -> npt.NDArray[np.uint8]:
    """Cut squares around the middles of boxes.

    Args:
        smear: the field of view.
        boxes: (N, 4) float32 xyxy pixels of the original image.
        sides: (N,) float32, side of each square in pixels of the original image.
        px: side of a result in pixels.

    Returns:
        RGB uint8 (N, px, px, 3).
    """
    out = np.empty((len(boxes), px, px, 3), dtype=np.uint8)
    for number, (box, side) in enumerate(zip(boxes, sides, strict=True)):
        centre = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
        out[number] = cut_crop(smear, centre, float(side), px)
    return out


def optical_density(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the optical density (natural log) of standardised RGB uint8 of any shape; background is 0."""
    table = -np.log(np.maximum(np.arange(256, dtype=np.float32), 1.0) / np.float32(WHITE))
    return np.asarray(cv2.LUT(np.ascontiguousarray(picture).reshape(1, -1), table), dtype=np.float32).reshape(
        picture.shape
    )
