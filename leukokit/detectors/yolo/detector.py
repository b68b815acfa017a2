"""The detector ``yolo``: each field is brought to the size that suits the network, and tiled if need be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import Field
from typing_extensions import TypeVar

from leukokit import weights
from leukokit.cells import MIN_ERYTHROCYTES, Cells
from leukokit.detectors.base import Detector, DetectorParams
from leukokit.detectors.yolo.loading import load_yolo
from leukokit.detectors.yolo.network import YoloModel
from leukokit.detectors.yolo.ruler import (
    ENOUGH_ERYTHROCYTES,
    PROBE_SIDE,
    Probe,
    densest_point,
    measure_diameter,
    predict_diameter,
    probes,
)
from leukokit.detectors.yolo.tiling import Tile, in_core, suppress_enclosing, suppress_overlaps, tiles_of
from leukokit.images.pixels import RGBImage, scale_image
from leukokit.smear import Smear
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE

DEFAULT_WEIGHTS: Final = "smear-yolo11n"
STRIDE: Final = 32
PADDING_GREY: Final = 240
LARGEST_CELL: Final = 3.5
"""Side of the largest leukocyte, in erythrocyte diameters: what neighbouring tiles share."""
OTHER_KIND_OVERLAP: Final = 0.8
"""Largest intersection over union of two cells of different kinds."""
ENCLOSED_SHARE: Final = 0.8
"""Share of a leukocyte's box within another's from which the other encloses it."""
WAITING_BATCHES: Final = 4
"""Most pictures that wait for others of their shape, in batches."""
SAME_SIZE: Final = 1.3
"""Ratio of sizes up to which the first probe's cells are the result: processing again changes nothing."""
CLOSE_UP: Final = 60
"""Area in squares of an erythrocyte's diameter below which a field is a close-up of few cells."""
LARGEST_GUESSED_SCALE: Final = 2.0
"""Largest factor by which a field is enlarged on a guess of its ruler."""


class YoloParams(DetectorParams):
    """Parameters of the detector ``yolo``."""

    weights: Path = Field(Path(DEFAULT_WEIGHTS), description="name of shipped weights, or a weight file")
    confidence: float | None = Field(
        None, ge=0, le=1, description="score below which a cell is dropped; by default the weights' own"
    )
    cell_diameter_px: float | None = Field(
        None,
        gt=2,
        description="erythrocyte diameter in pixels, which sets the scale; measured if not given",
    )
    overlap: float = Field(
        0.6, gt=0, le=1, description="largest intersection over union of two cells of one kind"
    )
    tile_px: int = Field(
        1024,
        ge=256,
        multiple_of=STRIDE,
        description="longest side of an image that the network gets, in pixels",
    )
    batch: int | None = Field(
        None, ge=1, description="images per call of the network; by default 8 on a GPU, 1 on a CPU"
    )
    trust_pickle: bool = Field(False, description="read .pt weights, which may run any code")


@dataclass(frozen=True, slots=True)
class _View:
    """One picture for the network: a tile of a field, and the factor by which it is resized."""

    smear: Smear
    tile: Tile
    scale: float


_Pending = tuple[int, _View, RGBImage]


Y_co = TypeVar("Y_co", bound=YoloParams, default=YoloParams, covariant=True)


class YoloDetector(Detector[Y_co]):
    """YOLO with ultralytics' networks.

    The network first sees the whole field, at a size that a quick guess of the erythrocyte diameter suggests.
    The erythrocytes found there give the scale. If they are much larger or smaller than suits the network, or
    if the field is too large for one picture, the field is processed again at the right size, in overlapping
    tiles. A field's cells depend on nothing but the field. The number of cells is not limited.
    """

    name = "yolo"
    version = "1.2"
    summary = "YOLO detector for leukocytes, erythrocytes and platelets, at any magnification"

    @cached_property
    def model(self) -> YoloModel:
        """The network, loaded on first use."""
        path = weights.find(self.params.weights)
        return load_yolo(path, self.device, self.params.trust_pickle, self.engine, self.threads)

    @property
    def engine_used(self) -> str:
        """Name and version of the engine that runs the network."""
        return self.model.engine

    @property
    def default_confidence(self) -> float:
        """The weights' own confidence threshold."""
        return self.model.confidence

    @property
    def batch(self) -> int:
        """Pictures given to the network at once; on a CPU more than one only cost memory."""
        return self.params.batch or (8 if self.device.startswith("cuda") else 1)

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        """Return the cells of each field; see ``Detector.detect``."""
        found: list[Cells | None] = [None] * len(smears)
        scales = [self._chosen_scale()] * len(smears)
        if self.params.cell_diameter_px is None:
            firsts = [self._first_probe(smear) for smear in smears]
            views = (_probe_view(smear, probe) for smear, probe in zip(smears, firsts, strict=True))
            for number, (smear, first, cells) in enumerate(
                zip(smears, firsts, self._run(views), strict=True)
            ):
                scales[number], found[number] = self._measure(smear, first, cells)
        remaining = [number for number, cells in enumerate(found) if cells is None]
        tiled = [self._tile_views(smears[number], scales[number]) for number in remaining]
        cells_of_tiles = self._run(itertools.chain.from_iterable(tiled))
        for number, tiles in zip(remaining, tiled, strict=True):
            parts = list(itertools.islice(cells_of_tiles, len(tiles)))
            found[number] = parts[0] if len(parts) == 1 else self._suppress(Cells.concatenate(parts))
        return [self._with_note(cells) for cells in found if cells is not None]

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The network's file."""
        return (weights.find(self.params.weights),)

    def provenance(self) -> dict[str, Any]:
        """As every plugin's, with the confidence threshold in force and the weights by their name."""
        stored = super().provenance()
        stored["params"] |= {"confidence": self.confidence}
        stored["params"]["weights"] = self.model.name
        return stored

    def _first_probe(self, smear: Smear) -> Probe:
        """The field at the size that suits the network by a guess of the ruler, if that is one picture."""
        generic = next(self._probes(smear))
        if (guess := predict_diameter(smear)) is None:
            return generic
        scale = float(self.model.cell_diameter_px / guess)
        is_close_up = smear.width * smear.height < CLOSE_UP * guess**2
        if generic.scale <= scale <= SAME_SIZE * generic.scale or (is_close_up and scale < generic.scale):
            # As good and smaller; or a field of few cells, where a guess is too rough to lose detail by.
            return generic
        fits = (
            scale <= LARGEST_GUESSED_SCALE and scale * max(smear.width, smear.height) <= self.params.tile_px
        )
        return Probe((0, 0, smear.width, smear.height), scale) if fits else generic

    def _probes(self, smear: Smear) -> Iterator[Probe]:
        return probes(smear.width, smear.height, min(PROBE_SIDE, self.params.tile_px))

    def _all_probes(
        self, smear: Smear, first: Probe, measured: Sequence[tuple[int, float]]
    ) -> Iterator[Probe]:
        """Yield the first probe, the usual ones and, while nothing is measured, those of the densest part."""
        yield first
        yield from (probe for probe in self._probes(smear) if probe != first)
        if not any(erythrocytes for erythrocytes, _ in measured) and (centre := densest_point(smear)):
            side, whole = min(PROBE_SIDE, self.params.tile_px), (0, 0, smear.width, smear.height)
            around = probes(smear.width, smear.height, side, centre)
            yield from (probe for probe in around if probe.region != whole)

    def _chosen_scale(self) -> float:
        return float(self.model.cell_diameter_px / (self.params.cell_diameter_px or 1.0))

    def _measure(self, smear: Smear, first: Probe, cells: Cells) -> tuple[float, Cells | None]:
        """Factor that brings the field's erythrocytes to the size that suits the network.

        The cells come with it where a probe of the whole field was near enough to that size.
        """
        low, high = self.model.diameter_range_px
        whole = (0, 0, smear.width, smear.height)
        measured: list[tuple[int, float]] = []
        whole_fields: dict[float, Cells] = {}
        for probe in self._all_probes(smear, first, measured):
            if probe != first:
                cells = next(self._run([_probe_view(smear, probe)]))
            if probe.region == whole:
                whole_fields[probe.scale] = cells
            confident = cells[cells.scores >= max(self.model.confidence, 0.25)]
            ruler = measure_diameter(confident, low / probe.scale, high / probe.scale)
            if ruler is not None:
                diameter, erythrocytes = ruler
                measured.append((erythrocytes, diameter))
                is_full_size = probe.region == whole and probe.scale == 1.0
                if erythrocytes >= ENOUGH_ERYTHROCYTES or (is_full_size and erythrocytes):
                    break
        scale = next(self._probes(smear)).scale
        if measured:
            scale = float(self.model.cell_diameter_px / max(measured)[1])
        nearest = min(whole_fields, key=lambda tried: abs(math.log(tried / scale)))
        return scale, whole_fields[nearest] if 1 / SAME_SIZE <= nearest / scale <= SAME_SIZE else None

    def _tile_views(self, smear: Smear, scale: float) -> list[_View]:
        side = max(int(self.params.tile_px / scale), 1)
        overlap = int(LARGEST_CELL * self.model.cell_diameter_px / scale)
        tiles = tiles_of(smear.width, smear.height, side, min(overlap, side // 2))
        return [_View(smear, tile, scale) for tile in tiles]

    def _with_note(self, cells: Cells) -> Cells:
        """Add a note where the ruler is missing: without it scale and counts are less reliable."""
        finds_erythrocytes = ERYTHROCYTE in self.model.kinds and self.params.cell_diameter_px is None
        if not finds_erythrocytes or cells.erythrocyte_diameter_px is not None:
            return cells
        note = f"fewer than {MIN_ERYTHROCYTES} erythrocytes found: no diameter was measured; check the counts"
        return replace(cells, notes=(*cells.notes, note))

    def _suppress(self, cells: Cells) -> Cells:
        cells = suppress_overlaps(cells, same_kind=self.params.overlap, any_kind=OTHER_KIND_OVERLAP)
        return suppress_enclosing(cells, LEUKOCYTE, ENCLOSED_SHARE)

    def _run(self, views: Iterable[_View]) -> Iterator[Cells]:
        """Yield the cells in the core of each view, in pixels of its field, in order.

        Pictures of one shape go to the network together, whatever lies between them, so that fields of
        different sizes fill its batches as well. No picture's cells depend on the other pictures.
        """
        groups: dict[tuple[int, ...], list[_Pending]] = {}
        done: dict[int, Cells] = {}
        yielded = 0
        for number, view in enumerate(views):
            picture = _picture_of(view)
            groups.setdefault(picture.shape, []).append((number, view, picture))
            largest = max(groups, key=lambda shape: len(groups[shape]))
            is_full = len(groups[largest]) >= self.batch
            if is_full or sum(map(len, groups.values())) >= WAITING_BATCHES * self.batch:
                done.update(self._run_batch(groups.pop(largest)))
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1
        for group in groups.values():
            done.update(self._run_batch(group))
        yield from (done[number] for number in sorted(done))

    def _run_batch(self, pending: list[_Pending]) -> Iterator[tuple[int, Cells]]:
        outputs = self.model.run(np.stack([picture for _, _, picture in pending]))
        for (number, view, _), anchors in zip(pending, outputs, strict=True):
            class_scores = anchors[:, 4:]
            scores = class_scores.max(axis=1)
            keep = scores >= self.confidence
            left, top, right, bottom = view.tile.region
            boxes = anchors[keep, :4] / view.scale + np.array([left, top, left, top], np.float32)
            boxes = np.clip(boxes, [left, top, left, top], [right, bottom, right, bottom]).astype(np.float32)
            kinds = self.model.kinds[class_scores[keep].argmax(axis=1)]
            own = in_core(view.tile, boxes) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            # Suppressed view by view, so that memory does not grow with the anchors of a large field.
            cells = Cells(boxes[own], kinds[own], scores[keep][own].clip(0, 1))
            yield number, self._suppress(cells)


def _probe_view(smear: Smear, probe: Probe) -> _View:
    return _View(smear, Tile(probe.region, probe.region), probe.scale)


def _picture_of(view: _View) -> RGBImage:
    left, top, right, bottom = view.tile.region
    part = scale_image(view.smear.image[top:bottom, left:right], view.scale)
    if view.smear.standardization is not None:
        width, height = view.smear.width, view.smear.height
        extent = (left / width, top / height, right / width, bottom / height)
        part = view.smear.standardization.apply(part, extent)
    pad_down, pad_right = (-side % STRIDE for side in part.shape[:2])
    padding = ((0, pad_down), (0, pad_right), (0, 0))
    return np.pad(part, padding, constant_values=PADDING_GREY)
