"""Time of standardising a field: measuring its light and stain, and applying what was measured.

The picture is a drawn smear enlarged or reduced to three sizes; medians of ``--runs`` calls in one process.

    python benchmarks/standardize.py [--runs 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from harness import print_table, write_figures

SIZES = ((640, 480), (1600, 1200), (4000, 3000))


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", type=int, default=20, help="calls of each (default: 20)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("needs at least one run")

    import cv2
    import numpy as np

    from leukokit.images.standardize import estimate_standardization
    from leukokit.synthetic.smear import draw_smear

    drawn = draw_smear().image
    figures: dict[str, dict[str, float]] = {}
    for width, height in SIZES:
        image = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        measured = estimate_standardization(image)  # also the warm-up
        measured.apply(image)
        figures[f"{width} x {height}"] = {
            "estimate_ms": _median_ms(partial(estimate_standardization, image), args.runs),
            "apply_ms": _median_ms(partial(measured.apply, image), args.runs),
        }
    print_table(
        ["pixels", "estimate ms", "apply ms", "apply ms / megapixel"],
        [
            [
                name,
                f"{row['estimate_ms']:.1f}",
                f"{row['apply_ms']:.1f}",
                f"{row['apply_ms'] / (width * height / 1e6):.1f}",
            ]
            for (name, row), (width, height) in zip(figures.items(), SIZES, strict=True)
        ],
    )
    write_figures(args.json, {"runs": args.runs, "medians": figures})


def _median_ms(call: Callable[[], Any], runs: int) -> float:
    spent = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return 1000 * median(spent)


if __name__ == "__main__":
    main()
