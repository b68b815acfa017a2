"""Cells on two fields of a slide are announced, whatever their names are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leukokit.batch.outputs.overlaps import Overlaps
from leukokit.batch.records import Entry
from leukokit.cells import Cells
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.synthetic.smear import draw_smear
from leukokit.taxonomy import KINDS
from leukokit.writers.tables import cell_row, lines

DRAWN = draw_smear(1, 1200, 500, 8, 40.0)
KIND_NUMBERS = np.array([KINDS.index(kind) for kind in DRAWN.kinds])


def entry(name: str, left: int, width: int = 700) -> Entry:
    """The part of the drawn smear from ``left`` on, as a batch keeps it."""
    whole = Cells(DRAWN.boxes, KIND_NUMBERS, np.ones(len(KIND_NUMBERS), np.float32))
    x = whole.centres[:, 0]
    part = whole[(x > left) & (x < left + width)]
    cells = Cells(part.boxes - np.array([left, 0, left, 0], np.float32), part.kinds, part.scores)
    smear = Smear.from_array(np.zeros((500, width, 3), np.uint8), Path(name))
    document = SmearResult(smear, cells, Path(name)).to_json()
    rows = lines(cell_row(name, cell, ()) for cell in document["cells"])
    return Entry(Path(name), document, "", rows)


def watched(*entries: tuple[Entry, str]) -> Overlaps:
    overlaps = Overlaps()
    assert list(overlaps.watch(entries)) == list(entries)
    return overlaps


def test_fields_of_a_slide_that_overlap_are_announced() -> None:
    overlaps = watched((entry('a "1",\nx.png', 0), "s"), (entry("b.png", 300), "s"))
    assert overlaps.fields == [("b.png", 'a "1",\nx.png')]
    assert overlaps.leukocytes > 0
    assert "2 fields overlap" in overlaps.attention and "counted twice" in overlaps.attention
    assert "\n" not in overlaps.attention


def test_fields_of_two_slides_and_empty_ones_are_not() -> None:
    assert watched((entry("a.png", 0), "s"), (entry("b.png", 300), "t")).attention == ""
    nothing = Entry(Path("c.png"), None, "cannot be read")
    assert watched((nothing, "s"), (entry("a.png", 0, 1), "s"), (entry("b.png", 500), "s")).fields == []
