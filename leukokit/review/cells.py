"""The leukocytes of a batch, as a reviewer sees them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukokit._text import printable, unescape_formula
from leukokit.batch.decisions import CellKey
from leukokit.batch.manifest_files import query_manifest, settings_of
from leukokit.batch.records import unpack
from leukokit.errors import ConfigError
from leukokit.taxonomy import KINDS, LEUKOCYTE
from leukokit.writers.tables import cell_columns, column_classes

_IMAGES = "SELECT name, document FROM plan JOIN images USING (name) WHERE error = '' ORDER BY place, name"


@dataclass(frozen=True, slots=True)
class ReviewField:
    """A field of view of a batch.

    Attributes:
        name: the image's name in the manifest, with ``/``.
        path: its file.
        width, height: in pixels.
        erythrocyte_diameter_px: the field's ruler; None where it could not be measured.
    """

    name: str
    path: Path
    width: int
    height: int
    erythrocyte_diameter_px: float | None


@dataclass(frozen=True, slots=True)
class ReviewCell:
    """A leukocyte of a batch.

    Attributes:
        key: which cell.
        box: left, top, right, bottom in pixels of the original image.
        label: the classifier's; empty without a classifier.
        probability: of the most probable class; 0 without a classifier.
        best: the most probable class, also of an unclassified cell.
    """

    key: CellKey
    box: tuple[float, float, float, float]
    label: str
    probability: float
    best: str


@dataclass(frozen=True, slots=True)
class ReviewBatch:
    """All fields and leukocytes of a batch.

    Attributes:
        fields: by name, in the order of the batch.
        cells: the leukocytes, field by field.
        classes: the classifier's; empty without one.
        weights: name and SHA-256 of its weight files, as one text.
    """

    fields: dict[str, ReviewField]
    cells: list[ReviewCell]
    classes: tuple[str, ...]
    weights: str


def read_batch(results: Path) -> ReviewBatch:
    """Read the leukocytes of a finished batch.

    Args:
        results: folder that ``leukokit batch`` wrote.

    Raises:
        ConfigError: it holds no batch that this release can read, or no image is done.
    """
    settings_of(results)
    facts = _facts(results)
    classes = tuple(facts.get("classes", ()))
    fields: dict[str, ReviewField] = {}
    cells: list[ReviewCell] = []
    for stored, packed in query_manifest(results, _IMAGES):
        document, rows = unpack(packed)
        name = Path(os.fsdecode(stored)).as_posix()
        size = document["image"]
        fields[name] = ReviewField(
            name, Path(size["path"]), size["width"], size["height"], document["erythrocyte_diameter_px"]
        )
        cells += _review_cells(name, rows, classes)
    if not fields:
        raise ConfigError(f"{printable(results)}: no image of this batch is done; run 'leukokit batch' first")
    classifier = (facts.get("provenance") or {}).get("classifier") or {}
    weights = " ".join(f"{name}:{sha256}" for name, sha256 in classifier.get("weights", {}).items())
    return ReviewBatch(fields, cells, classes, weights)


def _facts(results: Path) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in query_manifest(results, "SELECT key, value FROM facts")}


def _review_cells(name: str, rows: str, classes: tuple[str, ...]) -> Iterator[ReviewCell]:
    columns = column_classes(classes)
    for row in csv.DictReader(io.StringIO(rows, newline=""), cell_columns(columns)):
        if row["kind"] != KINDS[LEUKOCYTE]:
            continue
        chances = {label: float(row[f"p_{label}"]) for label in columns if row[f"p_{label}"]}
        best = max(chances, key=lambda label: chances[label], default="")
        left, top, right, bottom = (float(row[side]) for side in ("x1", "y1", "x2", "y2"))
        yield ReviewCell(
            CellKey(name, int(row["id"])),
            (left, top, right, bottom),
            unescape_formula(row["label"] or ""),
            chances.get(best, 0.0),
            best,
        )
