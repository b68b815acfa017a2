"""Writer ``png``: the smear with its cells drawn in."""

from __future__ import annotations

import io

import cv2
import numpy as np
from pydantic import Field

from leukokit.cells import Cells
from leukokit.pixels import RGBImage, scaled
from leukokit.plugin import PluginParams
from leukokit.results import SmearResult
from leukokit.taxonomy import COLOURS, KINDS, LEUKOCYTE
from leukokit.writers.base import Writer


class PngParams(PluginParams):
    """Parameters of the writer ``png``."""

    longest_side: int = Field(4096, ge=64, description="larger images are reduced to this side, in pixels")


class PngWriter(Writer):
    """``STEM.cells.png`` for every image: boxes coloured by kind, leukocytes labelled, counts in a legend."""

    name = "png"
    version = "1.0"
    summary = "the smear with its cells boxed, leukocytes labelled, and a legend with the counts"
    Params = PngParams

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        from PIL import Image

        picture = draw(result.smear.image, result.cells, self.params.longest_side)
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG", compress_level=3)
        self.save(self.path_for(result, ".cells.png"), stream.getvalue())


def draw(image: RGBImage, cells: Cells, longest_side: int = 4096) -> RGBImage:
    """A copy of an RGB uint8 (H, W, 3) image with its cells boxed and a legend below, RGB uint8."""
    import supervision as sv

    height, width = image.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    # supervision takes colours in the order of the picture's channels as BGR: it is given BGR.
    scene = np.ascontiguousarray(scaled(image, scale)[..., ::-1])
    size = scene.shape[1], scene.shape[0]
    palette = sv.ColorPalette.from_hex([COLOURS[kind] for kind in KINDS])
    thickness = max(1, round(max(size) / 700))
    shown = Cells(cells.boxes * np.float32(scale), cells.kinds, cells.scores)
    # The rare kind last, so that nothing is drawn over it.
    for kind in reversed(range(len(KINDS))):
        line = thickness + (kind == LEUKOCYTE)
        boxes = sv.BoxAnnotator(color=palette, thickness=line, color_lookup=sv.ColorLookup.CLASS)
        scene = boxes.annotate(scene, shown[shown.kinds == kind].to_supervision())
    leukocytes = shown[shown.kinds == LEUKOCYTE]
    labels = sv.LabelAnnotator(
        color=palette,
        text_scale=0.35 + 0.1 * thickness,
        text_padding=3,
        smart_position=True,
        color_lookup=sv.ColorLookup.CLASS,
    )
    texts = [f"leukocyte {score:.2f}" for score in leukocytes.scores]
    scene = labels.annotate(scene, leukocytes.to_supervision(), labels=texts)
    legend = _legend(cells.counts, size[0], thickness)
    return np.ascontiguousarray(np.concatenate([scene, legend])[..., ::-1])


def _legend(counts: dict[str, int], width: int, thickness: int) -> RGBImage:
    scale = min(0.4 + 0.12 * thickness, width / 900 + 0.1)
    row = round(46 * scale) + 4
    band = np.full((row, width, 3), 255, dtype=np.uint8)
    x = row // 3
    for kind, count in counts.items():
        text = f"{kind} {count}"
        red, green, blue = (int(COLOURS[kind][start : start + 2], 16) for start in (1, 3, 5))
        cv2.rectangle(band, (x, row // 4), (x + row // 2, 3 * row // 4), (blue, green, red), -1)
        x += round(0.7 * row)
        origin = (x, round(0.68 * row))
        cv2.putText(band, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (40, 40, 40), 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] + row // 2
    return band
