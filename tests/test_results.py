"""The JSON document of an image, schema 1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leukokit.cells import Cells
from leukokit.results import SCHEMA, SmearResult
from leukokit.smear import Smear
from leukokit.standardize import estimate
from leukokit.taxonomy import KINDS

KEYS = {
    "schema",
    "image",
    "cell_diameter_px",
    "standardization",
    "cells",
    "counts",
    "notes",
    "seconds",
    "provenance",
}


def made(
    cells: Cells, path: Path | None = Path("ward 3/smear.png"), notes: tuple[str, ...] = ()
) -> SmearResult:
    image = np.full((48, 64, 3), 230, np.uint8)
    smear = replace(Smear.from_array(image, path), notes=notes)
    return SmearResult(smear, cells, Path("ward 3/smear"), {"device": "cpu"}, 1.23456)


def test_a_field_with_cells() -> None:
    boxes = np.array([[10.004, 2, 30, 22], [1, 1, 11, 11], [2, 2, 12, 12], [3, 3, 13, 13]])
    cells = Cells(boxes, np.array([0, 1, 1, 1]), np.array([0.98768, 1, 0, 0.5]), ("cells overlap",))
    result = made(cells, notes=("first of 3 pages",))
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(document) == KEYS
    assert document["schema"] == SCHEMA == 1
    assert document["image"] == {
        "path": str(Path("ward 3/smear.png")),
        "width": 64,
        "height": 48,
        "sha256": result.smear.sha256,
    }
    assert document["cells"][0] == {
        "id": 0,
        "kind": "leukocyte",
        "box": [10.0, 2.0, 30.0, 22.0],
        "score": 0.9877,
    }
    assert [cell["id"] for cell in document["cells"]] == [0, 1, 2, 3]
    assert document["counts"] == {"leukocyte": 1, "erythrocyte": 3, "platelet": 0}
    assert document["cell_diameter_px"] == 10.0
    assert document["notes"] == ["first of 3 pages", "cells overlap"]
    assert document["seconds"] == 1.235
    assert document["provenance"] == {"device": "cpu"}
    assert document["standardization"] is None


def test_an_empty_field_from_memory() -> None:
    document = json.loads(json.dumps(made(Cells.empty(), path=None).to_json(), allow_nan=False))
    assert set(document) == KEYS
    assert document["cells"] == []
    assert document["counts"] == dict.fromkeys(KINDS, 0)
    assert document["cell_diameter_px"] is None
    assert document["image"]["path"] is None


def test_what_was_evened_out_is_in_the_document() -> None:
    result = made(Cells.empty())
    measured = estimate(result.smear.image)
    told = replace(result, smear=replace(result.smear, standardization=measured))
    document = json.loads(json.dumps(told.to_json(), allow_nan=False))
    assert document["standardization"]["unevenness"] == pytest.approx(measured.unevenness, abs=1e-3)
    assert len(document["standardization"]["stain_gains"]) == 3
