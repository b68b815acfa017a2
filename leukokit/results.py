"""The answer for one image: its cells, and everything needed to know how they were found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukokit.cells import Cells, Labelling
from leukokit.differential import Differential, differential
from leukokit.graph import CellGraph
from leukokit.smear import Smear
from leukokit.taxonomy import KINDS

SCHEMA = 1
"""Version of the JSON document; a field's meaning never changes within one."""


@dataclass(frozen=True, slots=True)
class SmearResult:
    """Cells of one smear with their provenance; checked when made.

    Attributes:
        smear: the image they were found on, original pixels.
        cells: what was found, the leukocytes with their classes where a classifier was asked.
        output_stem: relative path, without suffix, that output files of this image are named by.
        provenance: versions, plugins, parameters, weight hashes and device.
        seconds: time spent on it.
        graph: how the cells are linked, if they are; its nodes are the cells, in their order.

    Raises:
        ValueError: the graph is of another number of cells.
    """

    smear: Smear
    cells: Cells
    output_stem: Path
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    graph: CellGraph | None = None

    def __post_init__(self) -> None:
        if self.graph is not None and len(self.graph) != len(self.cells):
            raise ValueError(f"{len(self.cells)} cells, but a graph of {len(self.graph)}")

    @property
    def differential(self) -> Differential | None:
        """The differential count of this field; None where its leukocytes have no classes."""
        return None if self.cells.labelling is None else differential(self.cells.class_counts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told, from reading and from detecting."""
        return self.smear.notes + self.cells.notes

    def to_json(self) -> dict[str, Any]:
        """The JSON document of the image (schema 1); boxes in pixels of the original image.

        A cell that a classifier has looked at has a ``label`` (its class, or ``unclassified``), the
        ``probabilities`` of all classes, and ``review``: whether none of them is certain enough. Other cells,
        and those of a field without classes, lack the three. ``counts`` are of cells as they were detected;
        ``graph`` and ``differential`` are null where there is none.
        """
        diameter = self.cells.cell_diameter_px
        count = self.differential
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
            "cells": _cells_json(self.cells),
            "graph": None if self.graph is None else _graph_json(self.graph),
            "counts": self.cells.counts,
            "differential": None if count is None else count.to_json(),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "provenance": self.provenance,
        }


def _cells_json(cells: Cells) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = [
        {
            "id": number,
            "kind": KINDS[kind],
            "box": [round(side, 2) for side in box],
            "score": round(score, 4),
        }
        for number, (box, kind, score) in enumerate(
            zip(cells.boxes.tolist(), cells.kinds.tolist(), cells.scores.tolist(), strict=True)
        )
    ]
    if cells.labelling is not None:
        for document, label in zip(documents, _labels_json(cells.labelling), strict=True):
            document.update(label)
    return documents


def _labels_json(labelling: Labelling) -> list[dict[str, Any]]:
    rows = zip(labelling.labels, labelling.probabilities.tolist(), labelling.review.tolist(), strict=True)
    return [
        {
            "label": label,
            "probabilities": {
                name: round(value, 4) for name, value in zip(labelling.classes, values, strict=True)
            },
            "review": review,
        }
        if label
        else {}
        for label, values, review in rows
    ]


def _graph_json(graph: CellGraph) -> dict[str, Any]:
    return {"builder": graph.builder, "params": graph.params, "edges": graph.edges.T.tolist()}
