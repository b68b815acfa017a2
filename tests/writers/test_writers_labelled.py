"""Classes and graphs in every format, read back by another reader."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from PIL import Image

from leukokit.cells import Cells, Labelling
from leukokit.errors import OutputError
from leukokit.graph import CellGraph
from leukokit.registry import writers
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.taxonomy import (
    ERYTHROCYTE,
    KINDS,
    LEUKOCYTE,
    LEUKOCYTE_CLASSES,
    PLATELET,
    UNCLASSIFIED,
    colour_of,
)
from leukokit.writers.labels import CellLabel, cell_labels
from leukokit.writers.png import draw

NAMES = ("neutrophil", "basophil", "blast")
BARE = Cells(
    np.array(
        [
            [20, 60, 90, 130],
            [200, 60, 270, 130],
            [380, 60, 450, 130],
            [40, 220, 80, 260],
            [500, 220, 512, 232],
        ]
    ),
    np.array([LEUKOCYTE, LEUKOCYTE, LEUKOCYTE, ERYTHROCYTE, PLATELET]),
    np.array([0.9, 0.8, 0.7, 0.6, 0.5]),
)
LABELLING = Labelling(
    np.array([[0.1, 0.9, 0], [0.55, 0.25, 0.2], [0.125, 0, 0.875], [0, 0, 0], [0, 0, 0]]),
    NAMES,
    review_threshold=0.6,
)
CELLS = BARE.with_labelling(LABELLING)
LABELS = ["basophil", UNCLASSIFIED, "blast", "", ""]


def made(cells: Cells = CELLS, stem: str = "smear") -> SmearResult:
    image = np.full((300, 600, 3), (240, 228, 232), np.uint8)
    return SmearResult(Smear.from_array(image, Path(f"{stem}.png")), cells, Path(stem), {}, 0.5)


def saved(name: str, out: Path, *results: SmearResult) -> Path:
    with writers.get(name)(out) as writer:
        for result in results:
            writer.write(result)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def document_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_label_says_what_it_might_be() -> None:
    assert cell_labels(BARE) == [None] * 5
    found = cell_labels(CELLS)
    assert found[1] == CellLabel(UNCLASSIFIED, "neutrophil", float(np.float32(0.55)), True)
    assert found[2] == CellLabel("blast", "blast", 0.875, False)
    assert found[3:] == [None, None]


def test_csv_has_a_column_a_class(tmp_path: Path) -> None:
    blank = Cells.empty().with_labelling(Labelling(np.zeros((0, 3), np.float32), NAMES))
    saved("csv", tmp_path, made(), made(blank, "blank"), made(BARE, "bare"))
    cells = rows_of(tmp_path / "cells.csv")
    assert [row["label"] for row in cells] == LABELS + [""] * 5
    assert [row["probability"] for row in cells] == ["0.9", "0.55", "0.875", *[""] * 7]
    assert [row["p_blast"] for row in cells][2:4] == ["0.875", ""]
    assert {row["p_monocyte"] for row in cells} == {""}
    assert [row["review"] for row in cells] == ["false", "true", "false", *[""] * 7]
    full, empty, bare = rows_of(tmp_path / "counts.csv")
    assert list(full)[4:11] == [*LEUKOCYTE_CLASSES, "blast", UNCLASSIFIED]
    # A class that the classifier does not know is blank, not 0.
    found = {"neutrophil": "0", "basophil": "1", UNCLASSIFIED: "1", "blast": "1"}
    assert {name: full[name] for name in LEUKOCYTE_CLASSES} | found == (
        dict.fromkeys(LEUKOCYTE_CLASSES, "") | found
    )
    assert {name: empty[name] for name in found} == dict.fromkeys(found, "0")
    assert {bare[name] for name in (*LEUKOCYTE_CLASSES, "blast", UNCLASSIFIED)} == {""}
    assert bare["leukocyte"] == "3"


def test_csv_has_the_same_columns_whether_labelled_or_not(tmp_path: Path) -> None:
    known = Labelling(np.array([[1.0], [1.0], [1.0], [0], [0]]), ("monocyte",))
    runs: dict[str, list[SmearResult]] = {
        "none": [],
        "bare": [made(BARE)],
        "labelled": [made(BARE.with_labelling(known))],
        "late": [made(BARE), made(BARE.with_labelling(known), "other")],
    }
    headers = set()
    for run, results in runs.items():
        (tmp_path / run).mkdir()
        saved("csv", tmp_path / run, *results)
        headers.add(tuple((tmp_path / run / name).open().readline() for name in ("cells.csv", "counts.csv")))
    assert len(headers) == 1
    assert rows_of(tmp_path / "late" / "counts.csv")[1]["monocyte"] == "3"


def test_csv_says_where_another_classifier_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no column for class 'blast'") as caught:
        saved("csv", tmp_path, made(BARE), made())
    assert len(str(caught.value).splitlines()) == 1
    assert [row["leukocyte"] for row in rows_of(tmp_path / "counts.csv")] == ["3"]


def test_coco_has_attributes_beside_the_category(tmp_path: Path) -> None:
    document = document_of(saved("coco", tmp_path, made(), made(BARE, "bare")) / "coco.json")
    assert [row["name"] for row in document["categories"]] == list(KINDS)
    rows = document["annotations"]
    assert [row["category_id"] for row in rows[:5]] == [1, 1, 1, 2, 3]
    assert rows[1]["attributes"] == {"label": UNCLASSIFIED, "probability": 0.55, "review": True}
    assert rows[2]["attributes"] == {"label": "blast", "probability": 0.875, "review": False}
    assert not any("attributes" in row for row in rows[3:])


def test_geojson_is_classified_by_class(tmp_path: Path) -> None:
    document = document_of(saved("geojson", tmp_path, made()) / "smear.geojson")
    found = [feature["properties"] for feature in document["features"]]
    names = ["basophil", UNCLASSIFIED, "blast", "erythrocyte", "platelet"]
    assert [properties["classification"]["name"] for properties in found] == names
    colours = ["#{:02X}{:02X}{:02X}".format(*row["classification"]["color"]) for row in found]
    assert colours == [colour_of(name) for name in names]
    probabilities = [row["measurements"].get("probability") for row in found]
    assert probabilities == [0.9, 0.55, 0.875, None, None]


def test_yolo_keeps_to_kinds(tmp_path: Path) -> None:
    lines = (saved("yolo", tmp_path, made()) / "smear.txt").read_text().splitlines()
    assert [int(line.split()[0]) for line in lines] == CELLS.kinds.tolist()


def test_json_has_labels_and_graph(tmp_path: Path) -> None:
    linked = replace(made(), graph=CellGraph(BARE, np.array([[0], [3]]), "knn"))
    document = document_of(saved("json", tmp_path, linked) / "smear.json")
    assert [cell.get("label", "") for cell in document["cells"]] == LABELS
    assert document["graph"]["edges"] == [[0, 3]]


def test_graphml_is_read_by_networkx(tmp_path: Path) -> None:
    graph = CellGraph(BARE, np.array([[0, 0, 2], [1, 3, 4]]), "knn", {"k": 2})
    found = nx.read_graphml(saved("graphml", tmp_path, replace(made(), graph=graph)) / "smear.graphml")
    assert [found.nodes[str(number)].get("label", "") for number in range(5)] == LABELS
    assert [found.nodes[str(number)]["review"] for number in range(5)] == [False, True, False, False, False]
    assert found.nodes["1"]["p_neutrophil"] == pytest.approx(0.55)
    again = CellGraph.from_networkx(found)
    assert again.cells.class_counts == CELLS.class_counts
    np.testing.assert_array_equal(again.edges, graph.edges)
    np.testing.assert_array_equal(again.cells.boxes, BARE.boxes)
    assert (again.builder, again.params) == ("knn", {"k": 2})


@pytest.mark.parametrize("cells", [BARE, CELLS, Cells.empty()], ids=["bare", "labelled", "none"])
def test_graphml_without_a_graph_is_the_cells_alone(tmp_path: Path, cells: Cells) -> None:
    found = nx.read_graphml(saved("graphml", tmp_path, made(cells)) / "smear.graphml")
    assert found.number_of_nodes() == len(cells)
    assert found.number_of_edges() == 0


def pixels_of(picture: Any, name: str) -> int:
    return int((picture == np.array(list(bytes.fromhex(colour_of(name)[1:])), np.uint8)).all(axis=-1).sum())


def test_png_is_coloured_by_class(tmp_path: Path) -> None:
    with Image.open(saved("png", tmp_path, made()) / "smear.cells.png") as picture:
        pixels = np.asarray(picture)
    for cell, name in enumerate(("basophil", UNCLASSIFIED, "blast")):
        x1, _, x2, y2 = CELLS.boxes[cell].astype(int)
        assert pixels_of(pixels[y2 - 2 : y2 + 3, x1:x2], name) > x2 - x1
    field, legend = pixels[:300], pixels[300:]
    assert pixels_of(field, "erythrocyte") and pixels_of(field, "platelet")
    assert pixels_of(field, "neutrophil") == 0
    for name in (*KINDS, *NAMES, UNCLASSIFIED):
        # No colour that no box has: labelled leukocytes have those of their classes.
        assert bool(pixels_of(legend, name)) == bool(pixels_of(field, name)), name


def test_png_names_what_it_is_unsure_of_in_another_way() -> None:
    image = made().smear.image
    unsure = CELLS[1:2]
    sure = BARE[1:2].with_labelling(Labelling(LABELLING.probabilities[1:2], NAMES, review_threshold=0.5))
    asked, told, bare = (draw(image, cells)[:300] for cells in (unsure, sure, BARE[1:2]))
    assert pixels_of(asked, UNCLASSIFIED) and not pixels_of(asked, "neutrophil")
    assert pixels_of(told, "neutrophil") and not pixels_of(told, UNCLASSIFIED)
    assert pixels_of(bare, "leukocyte")


def test_the_legend_wraps_rather_than_losing_a_class() -> None:
    image = made().smear.image
    wide, narrow = draw(image, CELLS), draw(image[:, :100], CELLS)
    assert narrow.shape[0] > 300 and narrow.shape[1] == 100
    for name in ("erythrocyte", "platelet", "basophil", "blast", UNCLASSIFIED):
        assert pixels_of(narrow[300:], name), name
    other = replace(LABELLING, review_threshold=0.0)
    assert (draw(image, BARE.with_labelling(other))[300:] != wide[300:]).any(), "the legend tells the counts"
    assert draw(image, BARE).shape[0] < wide.shape[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_png_of_any_size_labelled(size: tuple[int, int]) -> None:
    picture = draw(np.zeros((*size, 3), np.uint8), CELLS, 64)
    assert picture.shape[1] == max(1, round(size[1] * min(1, 64 / max(size))))


def test_an_unknown_cell_is_named_without_a_question_mark() -> None:
    from leukokit.writers.labels import CellLabel
    from leukokit.writers.png import _label_text

    assert _label_text(CellLabel("unknown", "unknown", 0.8, True), 0.9) == "unknown 0.80"
    assert _label_text(CellLabel("unclassified", "monocyte", 0.5, True), 0.9) == "monocyte? 0.50"
