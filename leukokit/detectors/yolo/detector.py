"""The detector ``yolo``: each field is brought to the size the network sees best, tiled if need be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from leukokit import weights
from leukokit.cells import Cells
from leukokit.detectors.base import Detector
from leukokit.detectors.yolo.network import YoloModel, load_yolo
from leukokit.detectors.yolo.ruler import ENOUGH, GLIMPSE_SIDE, Glimpse, diameter_of, glimpses
from leukokit.detectors.yolo.tiling import Tile, owned, suppress, suppress_around, tiles_of
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.plugin import PluginParams
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE

DEFAULT_WEIGHTS = "smear-yolo11n"
STRIDE = 32
PADDING_GREY = 240
LARGEST_CELL = 3.5
"""Side of the largest leukocyte, in erythrocyte diameters: what neighbouring tiles share."""
OTHER_KIND_OVERLAP = 0.8
"""Largest intersection over union of two cells of different kinds."""
AROUND = 0.8
"""Share of a leukocyte's box within another from which that one is around it."""
SHAPES_WAITING = 4
"""Most pictures that wait for others of their shape, in batches."""
SAME_SIZE = 1.3
"""A glimpse this near to the wanted size is the answer; looking again would change nothing."""


class YoloParams(PluginParams):
    """Parameters of the detector ``yolo``."""

    weights: Path = Field(Path(DEFAULT_WEIGHTS), description="name of shipped weights, or a weight file")
    confidence: float | None = Field(
        None, ge=0, le=1, description="lowest score of a cell that is kept; by default the weights' own"
    )
    cell_diameter_px: float | None = Field(
        None,
        gt=2,
        description="erythrocyte diameter in pixels, which the image is scaled by; measured when not given",
    )
    overlap: float = Field(
        0.6, gt=0, le=1, description="largest intersection over union of two cells of a kind"
    )
    tile_px: int = Field(
        1024, ge=256, multiple_of=STRIDE, description="longest side shown to the network at once"
    )
    batch: int | None = Field(
        None, ge=1, description="pictures shown to the network at once; by default 8 on a GPU, 1 on a CPU"
    )
    trust_pickle: bool = Field(False, description="read .pt weights, which may run any code")


@dataclass(frozen=True, slots=True)
class _Look:
    """One picture for the network: a tile of a smear, and the factor it is resized by."""

    smear: Smear
    tile: Tile
    scale: float


_Pending = tuple[int, _Look, RGBImage]


class YoloDetector(Detector):
    """YOLO on ultralytics' networks.

    A field is looked at once as a whole; its erythrocytes tell the scale; if they are much larger or
    smaller than the network likes, or the field is too large for one look, it is looked at again at the
    right size, in overlapping tiles. There is no limit on the number of cells.
    """

    name = "yolo"
    version = "1.2"
    summary = "YOLO detector for leukocytes, erythrocytes and platelets, at any magnification"
    Params: ClassVar[type[PluginParams]] = YoloParams

    @cached_property
    def loaded(self) -> YoloModel:
        """The network; loaded on first use."""
        return load_yolo(weights.find(self.params.weights), self.device, self.params.trust_pickle)

    @property
    def confidence(self) -> float:
        """Lowest score that is kept."""
        given: float | None = self.params.confidence
        return self.loaded.confidence if given is None else given

    @property
    def batch(self) -> int:
        """Pictures shown to the network at once: on a CPU more only cost memory."""
        return self.params.batch or (8 if self.device.startswith("cuda") else 1)

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        """Cells of each smear; see ``Detector.detect``."""
        found: list[Cells | None] = [None] * len(smears)
        scales = [self._given_scale()] * len(smears)
        if self.params.cell_diameter_px is None:
            firsts = [next(self._glimpses(smear)) for smear in smears]
            seen = self._run(_as_look(smear, glimpse) for smear, glimpse in zip(smears, firsts, strict=True))
            for number, (smear, first, cells) in enumerate(zip(smears, firsts, seen, strict=True)):
                scales[number] = self._scale(smear, first, cells)
                if 1 / SAME_SIZE <= scales[number] / first.scale <= SAME_SIZE:
                    found[number] = cells
        again = [number for number, cells in enumerate(found) if cells is None]
        looks = [self._looks(smears[number], scales[number]) for number in again]
        answers = self._run(itertools.chain.from_iterable(looks))
        for number, own in zip(again, looks, strict=True):
            parts = list(itertools.islice(answers, len(own)))
            found[number] = parts[0] if len(parts) == 1 else self._suppressed(Cells.concatenate(parts))
        return [cells for cells in found if cells is not None]

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The network's file."""
        return (weights.find(self.params.weights),)

    def provenance(self) -> dict[str, Any]:
        """Parameters as used, and the weights' name and SHA-256."""
        stored = super().provenance()
        stored["params"] |= {"confidence": self.confidence}
        stored["params"]["weights"] = self.loaded.name
        return stored | {"weights_sha256": self.loaded.sha256}

    def _glimpses(self, smear: Smear) -> Iterator[Glimpse]:
        return glimpses(smear.width, smear.height, min(GLIMPSE_SIDE, self.params.tile_px))

    def _given_scale(self) -> float:
        return float(self.loaded.cell_diameter_px / (self.params.cell_diameter_px or 1.0))

    def _scale(self, smear: Smear, first: Glimpse, cells: Cells) -> float:
        """Factor that brings the smear's erythrocytes to the size the network sees best."""
        low, high = self.loaded.diameter_range_px
        measured: list[tuple[int, float]] = []
        for glimpse in self._glimpses(smear):
            if glimpse != first:
                cells = next(self._run([_as_look(smear, glimpse)]))
            confident = cells[cells.scores >= max(self.loaded.confidence, 0.25)]
            answer = diameter_of(confident, low / glimpse.scale, high / glimpse.scale)
            if answer is not None:
                diameter, support = answer
                measured.append((support, diameter))
                if support >= ENOUGH or (glimpse == first and glimpse.scale == 1.0 and support):
                    break
        if not measured:
            return first.scale
        return float(self.loaded.cell_diameter_px / max(measured)[1])

    def _looks(self, smear: Smear, scale: float) -> list[_Look]:
        side = max(int(self.params.tile_px / scale), 1)
        overlap = int(LARGEST_CELL * self.loaded.cell_diameter_px / scale)
        tiles = tiles_of(smear.width, smear.height, side, min(overlap, side // 2))
        return [_Look(smear, tile, scale) for tile in tiles]

    def _suppressed(self, cells: Cells) -> Cells:
        cells = suppress(cells, same_kind=self.params.overlap, any_kind=OTHER_KIND_OVERLAP)
        return suppress_around(cells, LEUKOCYTE, AROUND)

    def _run(self, looks: Iterable[_Look]) -> Iterator[Cells]:
        """Cells of each look in pixels of its smear, in order; those outside the look's core left out.

        Pictures of one shape go to the network together, whatever lies between them: fields of unlike sizes
        fill its batches, too, and no picture's answer depends on the others'.
        """
        groups: dict[tuple[int, ...], list[_Pending]] = {}
        done: dict[int, Cells] = {}
        given = 0
        for number, look in enumerate(looks):
            picture = _picture(look)
            groups.setdefault(picture.shape, []).append((number, look, picture))
            largest = max(groups, key=lambda shape: len(groups[shape]))
            full = len(groups[largest]) >= self.batch
            if full or sum(map(len, groups.values())) >= SHAPES_WAITING * self.batch:
                done.update(self._flush(groups.pop(largest)))
            while given in done:
                yield done.pop(given)
                given += 1
        for group in groups.values():
            done.update(self._flush(group))
        yield from (done[number] for number in sorted(done))

    def _flush(self, pending: list[_Pending]) -> Iterator[tuple[int, Cells]]:
        outputs = self.loaded.network(np.stack([picture for _, _, picture in pending]))
        for (number, look, _), anchors in zip(pending, outputs, strict=True):
            classes = anchors[:, 4:]
            scores = classes.max(axis=1)
            keep = scores >= self.confidence
            left, top, right, bottom = look.tile.region
            boxes = anchors[keep, :4] / look.scale + np.array([left, top, left, top], np.float32)
            boxes = np.clip(boxes, [left, top, left, top], [right, bottom, right, bottom]).astype(np.float32)
            kinds = self.loaded.kinds[classes[keep].argmax(axis=1)]
            mine = owned(look.tile, boxes) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            # Suppressed look by look, so that memory does not grow with the anchors of a large field.
            cells = Cells(boxes[mine], kinds[mine], scores[keep][mine].clip(0, 1))
            yield number, self._suppressed(cells)


def _as_look(smear: Smear, glimpse: Glimpse) -> _Look:
    return _Look(smear, Tile(glimpse.region, glimpse.region), glimpse.scale)


def _picture(look: _Look) -> RGBImage:
    left, top, right, bottom = look.tile.region
    part = look.smear.image[top:bottom, left:right]
    part = scale_image(part, look.scale)
    if look.smear.standardization is not None:
        width, height = look.smear.width, look.smear.height
        extent = (left / width, top / height, right / width, bottom / height)
        part = look.smear.standardization.apply(part, extent)
    pad_down, pad_right = (-side % STRIDE for side in part.shape[:2])
    padding = ((0, pad_down), (0, pad_right), (0, 0))
    return np.pad(part, padding, constant_values=PADDING_GREY)
