"""How even and how white standardisation leaves the background of real fields, laboratory by laboratory.

Background is what lies outside all boxes of a folder of ``leukokit data cells``. In each part of a 5 x 5 grid
its median optical density (natural log) is taken, which would be one value in all channels and parts if the
light were undone: ``uneven`` is the parts' mean deviation from the field's mean, ``tint`` the difference of
the palest and the densest channel, both means over fields.

    python benchmarks/background.py --cells cells [--fields 40] [--json FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import print_table, write_figures

from leukokit.crops.cut import optical_density
from leukokit.datasets.detected import DetectedField, load_detected
from leukokit.images.pixels import scale_image
from leukokit.images.standardize import estimate_standardization
from leukokit.smear import read_smear

PARTS = 5
SIDE = 400
"""Longer side, in pixels, of the copy that is measured."""
LEAST = 12
"""Fewest pixels whose median counts."""


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cells", type=Path, required=True, help="folder of 'leukokit data cells'")
    parser.add_argument("--fields", type=int, default=40, help="fields a laboratory (default: 40)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    by_lab: dict[str, list[DetectedField]] = {}
    for field in load_detected(args.cells).fields:
        # Their black corners are no background.
        if field.source.dataset != "kaggle-wbc":
            by_lab.setdefault(field.source.lab, []).append(field)
    figures: dict[str, dict[str, float]] = {}
    for lab, fields in sorted(by_lab.items()):
        chosen = np.random.default_rng(0).permutation(len(fields))[: args.fields]
        found = np.array([seen for number in chosen if (seen := measured(fields[number])) is not None])
        uneven, tint = found.mean(axis=0)
        figures[lab] = {"fields": len(found), "uneven": float(uneven), "tint": float(tint)}
    print_table(
        ["laboratory", "fields", "uneven", "tint"],
        [
            [lab, str(row["fields"]), f"{row['uneven']:.3f}", f"{row['tint']:.3f}"]
            for lab, row in figures.items()
        ],
    )
    write_figures(args.json, figures)


def measured(field: DetectedField) -> tuple[float, float] | None:
    """Unevenness and tint of a field's background; None if too little of it is visible."""
    image = read_smear(field.source.image).image
    picture = estimate_standardization(image).apply(image)
    height, width = picture.shape[:2]
    seen = np.ones((height, width), np.uint8)
    for x1, y1, x2, y2 in field.cells.boxes:
        rim = 0.06 * max(x2 - x1, y2 - y1) + 2
        seen[max(int(y1 - rim), 0) : int(y2 + rim), max(int(x1 - rim), 0) : int(x2 + rim)] = 0
    factor = min(1.0, SIDE / max(height, width))
    density = optical_density(scale_image(picture, factor))
    there = scale_image(np.repeat(seen[..., None] * np.uint8(255), 3, axis=2), factor)[..., 0] == 255
    parts = [
        np.median(colours[mask], axis=0)
        for colours, mask in zip(_parts(density), _parts(there), strict=True)
        if mask.sum() >= LEAST
    ]
    if len(parts) < 3:
        return None
    medians = np.array(parts)
    middle = medians.mean(axis=0)
    return float(np.abs(medians - middle).mean()), float(np.ptp(middle))


def _parts(picture: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return [part for rows in np.array_split(picture, PARTS) for part in np.array_split(rows, PARTS, axis=1)]


if __name__ == "__main__":
    main()
