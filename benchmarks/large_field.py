"""A stitched field's peak memory, time and cells: ``leukokit detect`` on a drawn field of many tiles.

The field is a mosaic of a few drawn fields of view, written tile by tile as a deflated TIFF into a temporary
folder. The same fields of view are also detected one by one; a mosaic that is cut into tiles and put together
again rightly has as many cells as they have, but for those on the seams.

    python benchmarks/large_field.py [--width 12000] [--height 12000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import Measured, console_script, measure, print_table, write_figures

FIELD = 2000
"""Side of a drawn field of view, pixels."""
TIFF_TILE = 400
"""Side of a tile in the file: a divisor of ``FIELD``, and of 16 pixels as TIFF wants it."""


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--width", type=int, default=12_000, help=f"pixels, a multiple of {FIELD}")
    parser.add_argument("--height", type=int, default=12_000, help=f"pixels, a multiple of {FIELD}")
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of different fields of view (default: 3)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default: cpu)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if min(args.width, args.height, args.seeds) < 1 or args.width % FIELD or args.height % FIELD:
        parser.error(f"width and height must be multiples of {FIELD}, and there must be a seed")
    columns, rows = args.width // FIELD, args.height // FIELD
    with tempfile.TemporaryDirectory() as folder:
        figures = _run(columns, rows, args.seeds, args.device, Path(folder))
    print_table(
        ["image", "megapixels", "cells", "seconds", "MiB"],
        [
            [
                name,
                f"{row['megapixels']:.0f}",
                f"{row['cells']}",
                f"{row['seconds']:.1f}",
                f"{row['peak_mib']:.0f}",
            ]
            for name, row in figures.items()
        ],
    )
    large = figures["mosaic"]
    found, expected = large["cells"], large["cells_of_its_fields"]
    print(f"cells of the mosaic / of its fields: {found} / {expected} = {found / max(expected, 1):.3f}")
    print(f"peak memory per million pixels: {large['peak_mib'] / large['megapixels']:.1f} MiB")
    write_figures(args.json, {"device": args.device, "images": figures})


def _run(columns: int, rows: int, seeds: int, device: str, folder: Path) -> dict[str, dict[str, Any]]:
    from PIL import Image

    from leukokit.synthetic.smear import draw_smear

    fields = [draw_smear(seed, FIELD, FIELD).image for seed in range(seeds)]
    singles = [folder / f"{seed}.png" for seed in range(seeds)]
    for path, field in zip(singles, fields, strict=True):
        Image.fromarray(field).save(path, compress_level=1)
    mosaic = folder / "mosaic.tif"
    _write_mosaic(mosaic, fields, columns, rows)
    alone = _detect(singles, device)
    large = _detect([mosaic], device)
    counts = [len(document["cells"]) for document in _documents(alone)]
    (document,) = _documents(large)
    expected = sum(counts[number % seeds] for number in range(columns * rows))
    area = FIELD**2 / 1e6
    return {
        "its fields, one by one": {
            "megapixels": area * seeds,
            "cells": sum(counts),
            "seconds": alone.seconds,
            "peak_mib": alone.peak_mib,
        },
        "mosaic": {
            "megapixels": area * columns * rows,
            "cells": len(document["cells"]),
            "cells_of_its_fields": expected,
            "erythrocyte_diameter_px": document["erythrocyte_diameter_px"],
            "seconds": large.seconds,
            "peak_mib": large.peak_mib,
        },
    }


def _detect(paths: list[Path], device: str) -> Measured:
    return measure([console_script("leukokit"), "detect", *paths, "--json", "--device", device])


def _documents(run: Measured) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.stdout.splitlines()]


def _write_mosaic(path: Path, fields: list[npt.NDArray[np.uint8]], columns: int, rows: int) -> None:
    import tifffile

    tifffile.imwrite(
        path,
        _tiles(fields, columns, rows),
        shape=(rows * FIELD, columns * FIELD, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(TIFF_TILE, TIFF_TILE),
        compression="zlib",
        compressionargs={"level": 1},
        predictor=True,
    )


def _tiles(fields: list[npt.NDArray[np.uint8]], columns: int, rows: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The mosaic's tiles in the file's order; its field number ``n`` is ``fields[n % len(fields)]``."""
    for top in range(0, rows * FIELD, TIFF_TILE):
        for left in range(0, columns * FIELD, TIFF_TILE):
            field = fields[(top // FIELD * columns + left // FIELD) % len(fields)]
            y, x = top % FIELD, left % FIELD
            yield np.ascontiguousarray(field[y : y + TIFF_TILE, x : x + TIFF_TILE])


if __name__ == "__main__":
    main()
