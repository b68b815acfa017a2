"""The answer for one image: its cells, and everything needed to know how they were found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukokit.cells import Cells
from leukokit.smear import Smear
from leukokit.taxonomy import KINDS

SCHEMA = 1
"""Version of the JSON document; a field's meaning never changes within one."""


@dataclass(frozen=True, slots=True)
class SmearResult:
    """Cells of one smear with their provenance.

    Attributes:
        smear: the image they were found on, original pixels.
        cells: what was found.
        output_stem: relative path, without suffix, that output files of this image are named by.
        provenance: versions, plugins, parameters, weight hashes and device.
        seconds: time spent on it.
    """

    smear: Smear
    cells: Cells
    output_stem: Path
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told, from reading and from detecting."""
        return self.smear.notes + self.cells.notes

    def to_json(self) -> dict[str, Any]:
        """The JSON document of the image (schema 1); boxes in pixels of the original image."""
        diameter = self.cells.cell_diameter_px
        standardization = self.smear.standardization
        return {
            "schema": SCHEMA,
            "image": {
                "path": str(self.smear.path) if self.smear.path else None,
                "width": self.smear.width,
                "height": self.smear.height,
                "sha256": self.smear.sha256,
            },
            "cell_diameter_px": None if diameter is None else round(diameter, 2),
            "standardization": None if standardization is None else standardization.to_json(),
            "cells": [
                {
                    "id": number,
                    "kind": KINDS[kind],
                    "box": [round(float(side), 2) for side in box],
                    "score": round(float(score), 4),
                }
                for number, (box, kind, score) in enumerate(
                    zip(self.cells.boxes, self.cells.kinds, self.cells.scores, strict=True)
                )
            ],
            "counts": self.cells.counts,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "provenance": self.provenance,
        }
