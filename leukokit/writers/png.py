"""Writer ``png``: the smear with its cells drawn in."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydantic import Field

from leukokit.cells import Cells
from leukokit.images.inputs import OWN_PICTURES
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.images.png import mark_as_drawn
from leukokit.plugin import PluginParams
from leukokit.results import SmearResult
from leukokit.taxonomy import KINDS, LEUKOCYTE, colour_of
from leukokit.writers.base import Writer
from leukokit.writers.labels import CellLabel, cell_labels

if TYPE_CHECKING:
    import supervision as sv

LIGHT = 0.4
"""Luminance of a colour, 0..1, above which text on it is black."""


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
        from PIL import Image

        picture = draw(result.smear.image, result.cells, self.params.longest_side)
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG", compress_level=3)
        self.save(self.path_for(result, OWN_PICTURES), mark_as_drawn(stream.getvalue()))


def draw(image: RGBImage, cells: Cells, longest_side: int = 4096) -> RGBImage:
    """A copy of an RGB uint8 (H, W, 3) image with its cells boxed and a legend below, RGB uint8."""
    import supervision as sv

    height, width = image.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    # supervision takes colours in the order of the picture's channels as BGR: it is given BGR.
    scene = np.ascontiguousarray(scale_image(image, scale)[..., ::-1])
    size = scene.shape[1], scene.shape[0]
    thickness = max(1, round(max(size) / 700))
    shown = replace(cells, boxes=cells.boxes * np.float32(scale))
    names = list(dict.fromkeys([*KINDS, *cells.class_counts]))
    palette = sv.ColorPalette.from_hex([colour_of(name) for name in names])
    # The rare kind last, so that nothing is drawn over it.
    for kind in reversed(range(len(KINDS))):
        line = thickness + (kind == LEUKOCYTE)
        boxes = sv.BoxAnnotator(color=palette, thickness=line, color_lookup=sv.ColorLookup.CLASS)
        scene = boxes.annotate(scene, _detections(shown[shown.kinds == kind], names))
    leukocytes = shown[shown.kinds == LEUKOCYTE]
    labels = sv.LabelAnnotator(
        color=palette,
        text_color=sv.ColorPalette.from_hex([_text_colour(colour_of(name)) for name in names]),
        text_scale=0.35 + 0.1 * thickness,
        text_padding=3,
        smart_position=True,
        color_lookup=sv.ColorLookup.CLASS,
    )
    numbers = np.flatnonzero(cells.kinds == LEUKOCYTE).tolist()
    texts = [
        f"{number} {_text(label, score)}"
        for number, label, score in zip(
            numbers, cell_labels(leukocytes), leukocytes.scores.tolist(), strict=True
        )
    ]
    scene = labels.annotate(scene, _detections(leukocytes, names), labels=texts)
    legends = [_legend(counts, size[0], thickness) for counts in (cells.counts, cells.class_counts) if counts]
    return np.ascontiguousarray(np.concatenate([scene, *legends])[..., ::-1])


def _detections(cells: Cells, names: list[str]) -> sv.Detections:
    """As supervision draws them: ``class_id`` is the position in ``names`` of the class, or of the kind."""
    detections = cells.to_supervision()
    shown = [
        KINDS[kind] if label is None else label.name
        for kind, label in zip(cells.kinds, cell_labels(cells), strict=True)
    ]
    detections.class_id = np.array([names.index(name) for name in shown], dtype=int)
    return detections


def _text(label: CellLabel | None, score: float) -> str:
    if label is None:
        return f"leukocyte {score:.2f}"
    return f"{label.likeliest}{'?' if label.review else ''} {label.probability:.2f}"


def _text_colour(colour: str) -> str:
    red, green, blue = ((byte / 255) ** 2.2 for byte in bytes.fromhex(colour[1:]))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > LIGHT else "#FFFFFF"


def _legend(counts: dict[str, int], width: int, thickness: int) -> RGBImage:
    """White rows as wide as the picture, with as many entries each as there is room for; BGR."""
    scale = min(0.4 + 0.12 * thickness, width / 900 + 0.1)
    row = round(46 * scale) + 4
    bands: list[RGBImage] = []
    x = width
    for name, count in counts.items():
        text = f"{name} {count}"
        step = round(0.7 * row) + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
        if x + step > width:
            bands.append(np.full((row, width, 3), 255, dtype=np.uint8))
            x = row // 3
        colour = tuple(bytes.fromhex(colour_of(name)[1:]))[::-1]
        cv2.rectangle(bands[-1], (x, row // 4), (x + row // 2, 3 * row // 4), colour, -1)
        origin = (x + round(0.7 * row), round(0.68 * row))
        cv2.putText(bands[-1], text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (40, 40, 40), 1, cv2.LINE_AA)
        x += step + row // 2
    return np.concatenate(bands)
