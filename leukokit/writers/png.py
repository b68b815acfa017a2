"""Writer ``png``: the smear with its cells drawn in."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from pydantic import Field

from leukokit.cells import Cells
from leukokit.images.inputs import OWN_PICTURES
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.images.png import mark_as_drawn
from leukokit.plugin import PluginParams
from leukokit.results import SmearResult
from leukokit.taxonomy import KINDS, LEUKOCYTE, UNCLASSIFIED, colour_of
from leukokit.writers.base import Writer
from leukokit.writers.labels import CellLabel, cell_labels

LIGHT: Final = 0.4
"""Luminance of a colour, 0..1, above which text on it is black."""
PADDING: Final = 3
"""Pixels around the text of a label."""
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""


class PngParams(PluginParams):
    """Parameters of the writer ``png``."""

    longest_side: int = Field(4096, ge=64, description="larger images are reduced to this side, in pixels")


class PngWriter(Writer[PngParams]):
    """``STEM.cells.png`` for every image: boxes coloured by kind, leukocytes labelled, counts in a legend.

    Leukocytes have the number that they have in tables, those of a known class its colour, name and
    probability; of the unclassified, the most probable class is named with a question mark.
    """

    name = "png"
    version = "1.2"
    summary = "one picture per image: boxes, labels of the leukocytes, and a legend with the counts"

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        picture = draw(result.smear.image, result.cells, self.params.longest_side)
        # Of little compression: twice as fast, and a tenth larger.
        encoded = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
        self.save(self.path_for(result, OWN_PICTURES), mark_as_drawn(encoded.tobytes()))


def draw(image: RGBImage, cells: Cells, longest_side: int = 4096) -> RGBImage:
    """A copy of an RGB uint8 (H, W, 3) image with its cells boxed and a legend below, RGB uint8."""
    # Drawn by OpenCV itself: the libraries for it take half a second to import.
    height, width = image.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    scene = np.array(scale_image(image, scale))
    thickness = max(1, round(max(scene.shape) / 700))
    boxes = np.round(cells.boxes * np.float32(scale)).astype(int)
    labels = cell_labels(cells)
    # The rare kind last, so that nothing is drawn over it.
    for kind in reversed(range(len(KINDS))):
        for number in np.flatnonzero(cells.kinds == kind).tolist():
            label, (left, top, right, bottom) = labels[number], boxes[number].tolist()
            colour = _class_rgb(KINDS[kind] if label is None else label.name)
            cv2.rectangle(scene, (left, top), (right, bottom), colour, thickness + (kind == LEUKOCYTE))
    taken: list[_Box] = []
    for number in np.flatnonzero(cells.kinds == LEUKOCYTE).tolist():
        label = labels[number]
        text = f"{number} {_label_text(label, float(cells.scores[number]))}"
        name = KINDS[LEUKOCYTE] if label is None else label.name
        taken.append(_draw_label(scene, boxes[number].tolist(), text, name, thickness, taken))
    size = scene.shape[1]
    drawn = {
        KINDS[kind] if label is None else label.name for kind, label in zip(cells.kinds, labels, strict=True)
    }
    legends = [
        _legend(counts, drawn, size, thickness) for counts in (cells.counts, cells.class_counts) if counts
    ]
    return np.concatenate([scene, *legends])


def _draw_label(
    scene: RGBImage, box: list[int], text: str, name: str, thickness: int, taken: list[_Box]
) -> _Box:
    """Write a text at a box, where it covers least of the labels that are there; returns its place."""
    scale, (height, width) = 0.35 + 0.1 * thickness, scene.shape[:2]
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, 1)
    wide, high = text_width + 2 * PADDING, text_height + 2 * PADDING
    left, top, right, bottom = box
    corners = [
        (left, top - high),
        (left, bottom),
        (right - wide, top - high),
        (right - wide, bottom),
        (left, top),
    ]
    places = [
        (x, y, x + wide, y + high)
        for x, y in (
            (min(max(x, 0), max(width - wide, 0)), min(max(y, 0), max(height - high, 0))) for x, y in corners
        )
    ]
    chosen = min(places, key=lambda place: sum(_shared(place, other) for other in taken))
    cv2.rectangle(scene, chosen[:2], chosen[2:], _class_rgb(name), -1)
    origin = (chosen[0] + PADDING, chosen[1] + PADDING + text_height)
    cv2.putText(scene, text, origin, _FONT, scale, _text_colour(name), 1, cv2.LINE_AA)
    return chosen


def _shared(first: _Box, second: _Box) -> int:
    """Pixels that two boxes share."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    return max(wide, 0) * max(high, 0)


def _label_text(label: CellLabel | None, score: float) -> str:
    if label is None:
        return f"leukocyte {score:.2f}"
    doubt = "?" if label.name == UNCLASSIFIED else ""
    return f"{label.likeliest}{doubt} {label.probability:.2f}"


def _class_rgb(name: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour_of(name)[1:])
    return red, green, blue


def _text_colour(name: str) -> tuple[int, int, int]:
    """Black or white, whichever is read on a class's or kind's colour."""
    red, green, blue = ((byte / 255) ** 2.2 for byte in _class_rgb(name))
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > LIGHT else (255, 255, 255)


def _legend(counts: dict[str, int], drawn: set[str], width: int, thickness: int) -> RGBImage:
    """Return the counts in white rows as wide as the picture; RGB uint8.

    An entry has a patch of its colour if a box of that colour is ``drawn``.
    """
    scale = min(0.4 + 0.12 * thickness, width / 900 + 0.1)
    row = round(46 * scale) + 4
    bands: list[RGBImage] = []
    x = width
    for name, count in counts.items():
        text = f"{name} {count}"
        step = round(0.7 * row) + cv2.getTextSize(text, _FONT, scale, 1)[0][0]
        if x + step > width:
            bands.append(np.full((row, width, 3), 255, dtype=np.uint8))
            x = row // 3
        if name in drawn:
            cv2.rectangle(bands[-1], (x, row // 4), (x + row // 2, 3 * row // 4), _class_rgb(name), -1)
        origin = (x + round(0.7 * row), round(0.68 * row))
        cv2.putText(bands[-1], text, origin, _FONT, scale, (40, 40, 40), 1, cv2.LINE_AA)
        x += step + row // 2
    return np.concatenate(bands)
