"""Windows cut from annotated fields, varied in scale, orientation, light, stain, focus and noise.

The stain is varied where it is linear, in optical density, as in Tellez et al. (2018,
doi:10.1109/TMI.2018.2820199), around fields that are already standardised.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.images.pixels import RGBImage, scale_image
from leukokit.images.standardize import WHITE


@dataclass(frozen=True, slots=True)
class Window:
    """A training picture: RGB uint8 (H, W, 3), float32 (N, 4) xyxy boxes in its pixels, int64 (N,) kinds."""

    image: RGBImage
    boxes: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int64]


def cut(
    field: Window, scale: float, size: tuple[int, int], visible: float, rng: np.random.Generator
) -> Window:
    """Cut a (height, width) window at ``scale``, around a random cell or anywhere; short fields are padded.

    A cell at the edge of the window keeps its box if at least ``visible`` of its area is inside.
    """
    height, width = size
    field_height, field_width = field.image.shape[:2]
    stretch = np.exp(rng.normal(0, 0.05))
    scale_x, scale_y = scale * stretch, scale / stretch
    span = np.array([width / scale_x, height / scale_y])
    room = np.array([field_width, field_height]) - span
    if len(field.boxes) and rng.random() < 0.6:
        # A rare kind is sought out as often as the common one.
        kind = rng.choice(np.unique(field.kinds))
        box = field.boxes[rng.choice(np.flatnonzero(field.kinds == kind))]
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.35, 0.35, 2) * span
        origin = np.clip(centre - span / 2, np.minimum(room, 0), np.maximum(room, 0))
    else:
        origin = rng.uniform(np.minimum(room, 0), np.maximum(room, 0))
    origin = np.where(room < 0, rng.uniform(np.minimum(room, 0), 0), origin)
    matrix = np.array([[scale_x, 0, -origin[0] * scale_x], [0, scale_y, -origin[1] * scale_y]])
    image = _warp(field.image, matrix, (width, height), scale)
    offset = np.tile(origin, 2)
    boxes = ((field.boxes - offset) * np.array([scale_x, scale_y] * 2)).astype(np.float32)
    return _clip(Window(image, boxes, field.kinds), visible)


def join(windows: list[Window], axis: int) -> Window:
    """Put windows one below the other (``axis`` 0) or side by side (``axis`` 1)."""
    starts = np.cumsum([0] + [window.image.shape[axis] for window in windows[:-1]])
    shift = np.array([0, 1, 0, 1] if axis == 0 else [1, 0, 1, 0], dtype=np.float32)
    return Window(
        np.concatenate([window.image for window in windows], axis=axis),
        np.concatenate(
            [window.boxes + start * shift for window, start in zip(windows, starts, strict=True)]
        ).astype(np.float32),
        np.concatenate([window.kinds for window in windows]),
    )


def turn(window: Window, rng: np.random.Generator) -> Window:
    """One of the eight flips and quarter turns: a smear has no upside."""
    image, boxes = window.image, window.boxes
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    if rng.random() < 0.5:
        image = image[::-1]
        boxes = np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1)
    if rng.random() < 0.5:
        image = image.transpose(1, 0, 2)
        boxes = boxes[:, [1, 0, 3, 2]]
    return Window(np.ascontiguousarray(image), np.ascontiguousarray(boxes), window.kinds)


def disturb(image: RGBImage, rng: np.random.Generator) -> RGBImage:
    """Vary stain, light, focus, noise and compression of a standardised RGB picture."""
    log_light = np.log(np.maximum(image.astype(np.float32), 1.0) / WHITE)
    mixing = np.eye(3) * np.exp(rng.normal(0, 0.25, 3)) * np.exp(rng.normal(0, 0.25))
    mixing += rng.normal(0, 0.06, (3, 3))
    if rng.random() < 0.1:
        mixing = np.full((3, 3), rng.uniform(0.2, 0.5))
    tint = rng.normal(0, 0.05, 3).astype(np.float32)
    log_light = np.asarray(cv2.transform(log_light, mixing.astype(np.float32)), dtype=np.float32) + tint
    if rng.random() < 0.4:
        log_light += _uneven_light(image.shape[:2], rng)
    out = np.exp(np.minimum(log_light, 0.3)) * WHITE
    focus = rng.random()
    if focus < 0.2:
        out = _blurred(out, rng.uniform(0.5, 1.8))
    elif focus < 0.35:
        out = out + (out - _blurred(out, rng.uniform(1.0, 2.5))) * rng.uniform(0.5, 2.0)
    if rng.random() < 0.3:
        out = out + rng.normal(0, rng.uniform(2, 9), image.shape).astype(np.float32)
    picture = np.asarray(np.clip(out, 0, 255), dtype=np.uint8)
    if rng.random() < 0.15:
        _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 80))])
        picture = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), dtype=np.uint8)
    return picture


def _uneven_light(size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    y, x = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8), indexing="ij")
    terms = np.stack([x, y, x * x, y * y, x * y], axis=-1)
    shared, coloured = rng.normal(0, 0.12, (5, 1)), rng.normal(0, 0.05, (5, 3))
    surface = (terms @ (shared + coloured)).astype(np.float32)
    enlarged = cv2.resize(surface - surface.max(), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged, dtype=np.float32)


def _blurred(picture: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.float32)


def _warp(image: RGBImage, matrix: npt.NDArray[np.float64], size: tuple[int, int], scale: float) -> RGBImage:
    if scale < 0.6:
        # Bilinear warping would alias: halve first, as often as it takes.
        halved = scale_image(image, 0.5)
        doubled = matrix * np.array([[2, 2, 1], [2, 2, 1]])
        return _warp(halved, doubled, size, scale * 2)
    fill = (int(WHITE),) * 3
    warped = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=fill)
    return np.asarray(warped, dtype=np.uint8)


def _clip(window: Window, visible: float) -> Window:
    height, width = window.image.shape[:2]
    boxes = window.boxes.copy()
    boxes[:, [0, 2]] = boxes[:, [0, 2]].clip(0, width)
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, height)
    sides = boxes[:, 2:] - boxes[:, :2]
    whole = np.prod(window.boxes[:, 2:] - window.boxes[:, :2], axis=1)
    keep = (np.prod(sides, axis=1) >= visible * whole) & (sides.min(axis=1, initial=np.inf) >= 3)
    return Window(window.image, boxes[keep], window.kinds[keep])
