"""The JSON document of an image, schema 1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leukokit.cells import Cells, Labelling
from leukokit.graph import CellGraph
from leukokit.images.standardize import estimate_standardization
from leukokit.results import SCHEMA, SmearResult
from leukokit.smear import Smear
from leukokit.taxonomy import ERYTHROBLAST, KINDS, UNCLASSIFIED

KEYS = {
    "schema",
    "image",
    "erythrocyte_diameter_px",
    "standardization",
    "cells",
    "counts",
    "differential",
    "graph",
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
    assert document["erythrocyte_diameter_px"] == 10.0
    assert document["notes"] == ["first of 3 pages", "cells overlap"]
    assert document["seconds"] == 1.235
    assert document["provenance"] == {"device": "cpu"}
    assert document["standardization"] is None
    assert document["graph"] is None
    assert document["differential"] is None


def test_an_empty_field_from_memory() -> None:
    document = json.loads(json.dumps(made(Cells.empty(), path=None).to_json(), allow_nan=False))
    assert set(document) == KEYS
    assert document["cells"] == []
    assert document["counts"] == dict.fromkeys(KINDS, 0)
    assert document["erythrocyte_diameter_px"] is None
    assert document["image"]["path"] is None


def test_what_was_evened_out_is_in_the_document() -> None:
    result = made(Cells.empty())
    measured = estimate_standardization(result.smear.image)
    told = replace(result, smear=replace(result.smear, standardization=measured))
    document = json.loads(json.dumps(told.to_json(), allow_nan=False))
    assert document["standardization"]["unevenness"] == pytest.approx(measured.unevenness, abs=1e-3)
    assert len(document["standardization"]["stain_gains"]) == 3


LABELLED = Cells(
    np.array([[10 * i, 5, 10 * i + 8, 13] for i in range(5)]),
    np.array([0, 1, 0, 0, 0]),
    np.ones(5, np.float32),
).with_labelling(
    Labelling(
        np.array([[0.91234567, 0.08765433], [0, 0], [0.6, 0.4], [0.125, 0.875], [0, 0]]),
        ("neutrophil", ERYTHROBLAST),
        review_threshold=0.7,
    )
)


def test_a_labelled_field() -> None:
    document = json.loads(json.dumps(made(LABELLED).to_json(), allow_nan=False))
    assert set(document) == KEYS
    first, red, unsure, erythroblast, not_looked_at = document["cells"]
    assert (first["label"], first["review"]) == ("neutrophil", False)
    assert first["probabilities"] == {"neutrophil": 0.9123, ERYTHROBLAST: 0.0877}
    assert (unsure["label"], unsure["review"]) == (UNCLASSIFIED, True)
    assert unsure["probabilities"] == {"neutrophil": 0.6, ERYTHROBLAST: 0.4}
    assert erythroblast["label"] == ERYTHROBLAST
    assert set(red) == set(not_looked_at) == {"id", "kind", "box", "score"}
    assert document["counts"] == {"leukocyte": 4, "erythrocyte": 1, "platelet": 0}
    assert document["differential"] == {
        "n": 1,
        "below_minimum": True,
        "withheld": True,
        "classes": {"neutrophil": {"count": 1, "percent": None, "interval": None, "bounds": [50.0, 100.0]}},
        "unclassified": 1,
        "unknown": None,
        "warning": None,
        "erythroblasts": 1,
        "erythroblasts_per_100": 100.0,
    }


def test_a_labelled_field_without_a_cell_has_a_differential_of_nothing() -> None:
    nothing = Cells.empty().with_labelling(Labelling(np.zeros((0, 1), np.float32), ("neutrophil",)))
    count = json.loads(json.dumps(made(nothing).to_json(), allow_nan=False))["differential"]
    assert count["n"] == 0
    nothing_known = {"percent": None, "interval": [0.0, 100.0], "bounds": [0.0, 100.0]}
    assert count["classes"] == {"neutrophil": {"count": 0, **nothing_known}}
    assert (count["erythroblasts"], count["erythroblasts_per_100"]) == (None, None)


def test_the_graph_is_in_the_document() -> None:
    graph = CellGraph(LABELLED, np.array([[0, 0, 2], [1, 4, 3]]), "knn", {"k": 2})
    document = json.loads(json.dumps(replace(made(LABELLED), graph=graph).to_json(), allow_nan=False))
    assert document["graph"] == {"builder": "knn", "params": {"k": 2}, "edges": [[0, 1], [0, 4], [2, 3]]}
    alone = replace(made(LABELLED), graph=CellGraph.unlinked(LABELLED)).to_json()["graph"]
    assert alone == {"builder": "", "params": {}, "edges": []}
    with pytest.raises(ValueError, match="5 cells, but a graph of 0"):
        replace(made(LABELLED), graph=CellGraph.unlinked(Cells.empty()))


def test_a_table_names_its_image() -> None:
    table = made(LABELLED).to_dataframe()
    assert list(table.columns[:3]) == ["image", "id", "kind"]
    assert set(table["image"]) == {str(Path("ward 3/smear.png"))}
    assert set(made(LABELLED, path=None).to_dataframe()["image"]) == {""}


def test_its_text_form_has_no_pixels() -> None:
    assert repr(made(LABELLED)) == (
        f"<SmearResult of {str(Path('ward 3/smear.png'))!r} 64 x 48 px: <Cells: 4 leukocyte, 1 erythrocyte, "
        "1 neutrophil, 1 erythroblast, 1 unclassified>>"
    )


def test_without_a_classifier_the_differential_is_empty() -> None:
    count = made(Cells.empty()).differential
    assert (count.n, dict(count.shares), count.unclassified, count.erythroblasts) == (0, {}, 0, None)
