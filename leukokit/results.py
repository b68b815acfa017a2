"""The result for one image: its cells, and everything needed to know how they were found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leukokit.cells import Cells, Labelling
from leukokit.differential import Differential, differential
from leukokit.graph import CellGraph
from leukokit.smear import Smear
from leukokit.taxonomy import KINDS

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
"""Version of the JSON document; within one version a key never changes its meaning."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SmearResult:
    """The cells of one field of view with their provenance; checked when made.

    Attributes:
        smear: the field in its original pixels.
        cells: its cells; the leukocytes have classes where the pipeline has a classifier.
        output_stem: relative path, without suffix, that output files of this image are named after.
        provenance: versions, plugins, parameters, weight hashes and device.
        seconds: time spent on it.
        graph: links between the cells, if any; its nodes are the cells, in their order.

    Raises:
        ValueError: the graph has another number of cells.

    Examples:
        >>> from leukokit.synthetic.smear import draw_smear
        >>> field = Smear.from_array(draw_smear(width=400, height=300, leukocytes=1).image)
        >>> result = SmearResult(field, Cells.empty(), Path("field"))
        >>> result
        <SmearResult of 400 x 300 px: <Cells: none>>
        >>> result.to_json()["counts"]
        {'leukocyte': 0, 'erythrocyte': 0, 'platelet': 0}
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

    def __repr__(self) -> str:
        name = "" if self.smear.path is None else f" {str(self.smear.path)!r}"
        return f"<SmearResult of{name} {self.smear.width} x {self.smear.height} px: {self.cells!r}>"

    @property
    def differential(self) -> Differential:
        """The differential count of this field; without shares where no classifier named the cells."""
        return differential(self.cells.class_counts)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user, from reading and from detecting."""
        warning = self.differential.warning
        standardization = self.smear.standardization
        measured = () if standardization is None else standardization.notes
        return (*([warning] if warning else []), *self.smear.notes, *measured, *self.cells.notes)

    def to_dataframe(self) -> pd.DataFrame:
        """``Cells.to_dataframe`` with the image's path as its first column, ``image``.

        The path is empty for pixels in memory; tables of several fields can be concatenated.
        """
        table = self.cells.to_dataframe()
        table.insert(0, "image", "" if self.smear.path is None else str(self.smear.path))
        return table

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of the image (schema 1); boxes in pixels of the original image.

        A cell that a classifier named has a ``label`` (its class, or ``unclassified``), the
        ``probabilities`` of all classes, and ``review``: whether the best of them is below the review
        threshold. Other cells lack the three. ``counts`` are of cells as they were detected; ``graph`` and
        ``differential`` are null where there are none.
        """
        diameter = self.cells.erythrocyte_diameter_px
        standardization = self.smear.standardization
        return {
            "schema": SCHEMA,
            "image": {
                "path": str(self.smear.path) if self.smear.path else None,
                "width": self.smear.width,
                "height": self.smear.height,
                "sha256": self.smear.sha256,
            },
            "erythrocyte_diameter_px": None if diameter is None else round(diameter, 2),
            "standardization": None if standardization is None else standardization.to_json(),
            "cells": _cells_json(self.cells),
            "graph": None if self.graph is None else _graph_json(self.graph),
            "counts": self.cells.counts,
            "differential": None if self.cells.labelling is None else self.differential.to_json(),
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
