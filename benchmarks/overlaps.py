"""Pairs of annotated fields that show the same cells, among all pairs of a set in VOC's form.

Run ``python benchmarks/overlaps.py ../shared/data/bccd``.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from leukokit.cells import Cells
from leukokit.overlap import Constellation, find_overlap
from leukokit.taxonomy import KINDS, kind_of

SIDES = ("xmin", "ymin", "xmax", "ymax")


def main() -> None:
    """Compare all fields of a set and print the pairs that overlap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a set with a folder 'Annotations'")
    folder = parser.parse_args().folder
    fields = {path.stem: read_field(path) for path in sorted((folder / "Annotations").glob("*.xml"))}
    started, pairs = time.perf_counter(), 0
    for (name, field), (other, another) in itertools.combinations(fields.items(), 2):
        pairs += 1
        if (overlap := find_overlap(field, another)) is not None:
            x, y = overlap.shift
            print(f"{name} and {other}: shift {x:.0f}, {y:.0f} px, {overlap.erythrocytes} erythrocytes")
    print(f"{len(fields)} fields, {pairs:,} pairs, {time.perf_counter() - started:.1f} s")


def read_field(path: Path) -> Constellation:
    """The annotated cells of a field."""
    root = ElementTree.parse(path).getroot()
    rows = [
        (
            kind_of(item.findtext("name") or ""),
            [float(item.findtext(f"bndbox/{side}") or 0) for side in SIDES],
        )
        for item in root.iter("object")
    ]
    known = [(KINDS.index(kind), box) for kind, box in rows if kind and box[0] < box[2] and box[1] < box[3]]
    boxes = np.array([box for _, box in known]).reshape(-1, 4)
    kinds = np.array([kind for kind, _ in known], np.int64)
    size = int(root.findtext("size/width") or 0), int(root.findtext("size/height") or 0)
    return Constellation(Cells(boxes, kinds, np.ones(len(kinds), np.float32)), size)


if __name__ == "__main__":
    main()
