"""Annotated cells in their context: annotated fields as the detector sees them, ready for a classifier.

A classifier meets the detector's boxes, never an annotator's, so it is trained on those. Every field is
read, standardised and detected once; what the training needs of it is kept in a folder::

    fields.jsonl     one detected field per line: where it comes from, all its cells, the labels of some
    crops.npy        uint8 (M, CROP_PX, CROP_PX, 3), the annotated cells in the order of the fields
    appearance.npy   float32 (all cells, 13), see ``leukokit.crops.appearance``
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leukokit._files import make_folder, read_regular_file, write_error
from leukokit.cells import Cells
from leukokit.crops.appearance import APPEARANCE, appearance
from leukokit.crops.cut import REACH, cut_crops
from leukokit.datasets.fields import AnnotatedField, is_selected, known_values
from leukokit.errors import DataError, LeukokitError
from leukokit.pipeline import Pipeline
from leukokit.taxonomy import LEUKOCYTE

CROP_PX = 192
"""Side of a kept crop, ``crops.REACH`` longer sides of the cell's box: room to turn it and to resize it."""
LEAST_OVERLAP = 0.1
"""Intersection over union from which a detected leukocyte is the annotated one."""


@dataclass(frozen=True, slots=True)
class DetectedField:
    """A field as the detector sees it.

    Attributes:
        source: where it comes from, without annotations.
        cells: all cells, the missed annotated ones added with their annotated box and score 0.
        labels: (N,) label of every cell, empty where there is none.
        appearance: (N, 13) float32.
        first_crop: number of the field's first crop; annotated cells follow in their order.
    """

    source: AnnotatedField
    cells: Cells
    labels: tuple[str, ...]
    appearance: npt.NDArray[np.float32]
    first_crop: int

    @property
    def annotated(self) -> npt.NDArray[np.int64]:
        """(M,) int64: numbers of the annotated cells."""
        return np.flatnonzero([bool(label) for label in self.labels]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class DetectedFields:
    """All fields of a folder; ``crops`` is (M, CROP_PX, CROP_PX, 3) uint8, left on disk until read."""

    fields: list[DetectedField]
    crops: npt.NDArray[np.uint8]


def match_labels(field: AnnotatedField, cells: Cells, size: tuple[int, int]) -> tuple[Cells, list[str]]:
    """Give the detected leukocytes the annotated labels.

    A box that is the whole picture stands for the picture's one cell: the largest one near the middle.
    An annotated cell that was not detected is added with its annotated box (the middle half of the
    picture, where that is the whole) and score 0, so that no annotated cell is lost.

    Args:
        field: annotations.
        cells: what the detector found.
        size: width, height of the image.
    """
    labels = [""] * len(cells)
    missed: list[npt.NDArray[np.float32]] = []
    names: list[str] = []
    for box, kind, label in zip(field.box_array(), field.kinds, field.labels, strict=True):
        if kind != "leukocyte" or not label:
            continue
        free = np.array([not taken for taken in labels], dtype=bool) & (cells.kinds == LEUKOCYTE)
        whole = is_whole_picture(box, size)
        fit = _prominence(cells.boxes, size) if whole else _overlap(box, cells.boxes)
        fit = np.where(free, fit, 0.0)
        if len(fit) and fit.max() > (0.0 if whole else LEAST_OVERLAP):
            labels[int(fit.argmax())] = label
        else:
            middle = np.array([0.25, 0.25, 0.75, 0.75], dtype=np.float32) * np.array(size * 2, np.float32)
            missed.append(middle if whole else box)
            names.append(label)
    if not missed:
        return cells, labels
    added = Cells(
        np.stack(missed), np.full(len(missed), LEUKOCYTE, np.int64), np.zeros(len(missed), np.float32)
    )
    return Cells.concatenate([cells, added]), labels + names


def is_whole_picture(box: npt.NDArray[np.float32], size: tuple[int, int]) -> bool:
    """Whether a box xyxy stands for the picture of (width, height) pixels and not for a place in it."""
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return area >= 0.95 * size[0] * size[1]


def detect_fields(
    fields: Iterable[AnnotatedField],
    pipeline: Pipeline,
    out: Path,
    report: Callable[[str], None] = print,
) -> int:
    """Detect the cells of every field that has a label, and write the folder; returns the number of crops.

    Fields that cannot be read are reported and left out.

    Raises:
        DataError: no field has a label.
        OutputError: the folder cannot be written.
    """
    make_folder(out)
    chosen = [field for field in fields if any(field.labels)]
    total = sum(1 for field in chosen for label in field.labels if label)
    if not total:
        raise DataError("no leukocyte of these fields has a class; annotate some first")
    try:
        return _write_folder(chosen, total, pipeline, out, report)
    except OSError as error:
        raise write_error(out, error) from error


def _write_folder(
    fields: Sequence[AnnotatedField],
    total: int,
    pipeline: Pipeline,
    out: Path,
    report: Callable[[str], None],
) -> int:
    """Write the three files, under temporary names until all of them are whole."""
    crops = 0
    appearances = [np.empty((0, len(APPEARANCE)), np.float32)]
    store = np.lib.format.open_memmap(
        out / "crops.npy.part", mode="w+", dtype=np.uint8, shape=(total, CROP_PX, CROP_PX, 3)
    )
    with (out / "fields.jsonl.part").open("w", encoding="utf-8") as stream:
        for number, field in enumerate(fields, 1):
            try:
                smear = pipeline.read(field.image)
                found = pipeline.detect(smear)
            except LeukokitError as error:
                report(str(error))
                continue
            cells, labels = match_labels(field, found, (smear.width, smear.height))
            annotated = [i for i, label in enumerate(labels) if label]
            boxes = cells.boxes[annotated]
            sides = REACH * (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
            store[crops : crops + len(annotated)] = cut_crops(smear, boxes, sides, CROP_PX)
            appearances.append(appearance(smear, cells))
            row = _cell_row(field, out, cells, labels, crops)
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            crops += len(annotated)
            if number % 100 == 0 or number == len(fields):
                report(f"{number} of {len(fields)} fields, {crops} annotated cells")
    store.flush()
    np.save(out / "appearance.part.npy", np.concatenate(appearances))
    (out / "appearance.part.npy").replace(out / "appearance.npy")
    (out / "crops.npy.part").replace(out / "crops.npy")
    (out / "fields.jsonl.part").replace(out / "fields.jsonl")
    return crops


def load_detected(folder: Path) -> DetectedFields:
    """Read what ``detect_fields`` wrote.

    Raises:
        DataError: the folder is not one of these, or its files do not fit together.
    """
    try:
        lines = read_regular_file(folder / "fields.jsonl").decode().splitlines()
        crops = np.load(folder / "crops.npy", mmap_mode="r", allow_pickle=False)
        appearances = np.load(folder / "appearance.npy", allow_pickle=False)
        fields, start = [], 0
        for line in lines:
            row = json.loads(line)
            count = len(row["labels"])
            fields.append(_detected_field(folder, row, appearances[start : start + count]))
            start += count
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: no annotated cells ({error}); 'leukokit data cells' makes such a folder"
        ) from error
    return DetectedFields(fields, crops)


def select_detected(
    folders: Iterable[Path],
    datasets: Sequence[str] | None = None,
    labs: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    slides: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> list[DetectedField]:
    """Read the fields of some data sets, laboratories, splits and slides; all where none is named.

    Args:
        folders: of ``leukokit data cells``.
        datasets: names of data sets.
        labs: names of laboratories.
        splits: names of splits.
        slides: names of slides.
        classes: the only annotated cells that are kept as such.

    Raises:
        DataError: a folder cannot be read, or no field is selected; the message names the choices.
    """
    known = [field for folder in folders for field in load_detected(folder).fields]
    chosen = [field for field in known if is_selected(field.source, datasets, labs, splits, slides)]
    if not chosen:
        there = known_values(field.source for field in known)
        raise DataError(f"no annotated cell is of that data set, laboratory, split and slide; {there}")
    if not classes:
        return chosen
    kept = set(classes)
    return [
        replace(field, labels=tuple(label if label in kept else "" for label in field.labels))
        for field in chosen
    ]


def _cell_row(
    field: AnnotatedField, folder: Path, cells: Cells, labels: list[str], first_crop: int
) -> dict[str, Any]:
    return {
        "image": Path(os.path.relpath(field.image.resolve(), folder.resolve())).as_posix(),
        "dataset": field.dataset,
        "lab": field.lab,
        "photo": field.photo,
        "slide": field.slide,
        "split": field.split,
        "boxes": cells.boxes.round(2).tolist(),
        "kinds": cells.kinds.tolist(),
        "scores": cells.scores.round(4).tolist(),
        "labels": labels,
        "first_crop": first_crop,
    }


def _detected_field(folder: Path, row: dict[str, Any], appearances: npt.NDArray[np.float32]) -> DetectedField:
    source = AnnotatedField(
        folder / row["image"], row["dataset"], row["lab"], row["photo"], row["slide"], row["split"], ()
    )
    boxes = np.asarray(row["boxes"], dtype=np.float32).reshape(-1, 4)
    cells = Cells(boxes, np.asarray(row["kinds"], np.int64), np.asarray(row["scores"], np.float32))
    return DetectedField(source, cells, tuple(row["labels"]), appearances, int(row["first_crop"]))


def _prominence(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Area of each box, discounted towards the corners of the picture."""
    half = np.array(size, dtype=np.float32) / 2
    off = ((boxes[:, :2] + boxes[:, 2:]) / 2 - half) / half
    nearness = np.clip(1 - np.hypot(off[:, 0], off[:, 1]) / np.sqrt(2), 0, 1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(area * nearness, dtype=np.float32)


def _overlap(box: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return np.asarray(common / np.maximum(areas - common, 1e-6), dtype=np.float32)
