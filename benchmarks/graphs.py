"""Time of linking the cells of a crowded field, beside squidpy's ``spatial_neighbors`` where it is installed.

Cells are scattered at random, so densely that each has about 18 others within three erythrocyte diameters.
Every builder runs as ``build(cells)``, checks included, with its default parameters; squidpy (Palla et al.
2022, doi:10.1038/s41592-021-01358-2) is asked for the same links of the same points in the same process.
Medians of ``--runs`` calls, the two in turn, after one that is not counted.

    python benchmarks/graphs.py [--cells 100000] [--runs 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from harness import print_table, write_figures

DIAMETER = 50.0
"""Erythrocyte diameter, in pixels."""
NEIGHBOURS = 18
"""Others within three diameters, on average."""


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cells", type=int, default=100_000, help="number of cells (default: 100000)")
    parser.add_argument("--runs", type=int, default=5, help="calls of each (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the cells' places (default: 0)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.cells < 10 or args.runs < 1:
        parser.error("needs at least ten cells and one run")

    from leukokit.registry import graph_builders

    cells = crowded_field(args.cells, args.seed)
    asked = squidpy_calls(cells)
    figures: dict[str, dict[str, Any]] = {}
    for name in ("knn", "radius", "delaunay"):
        builder = graph_builders.get(name)()
        calls: dict[str, Callable[[], Any]] = {"leukokit": partial(builder.build, cells)}
        if asked is not None:
            calls["squidpy"] = asked[name]
        figures[name] = in_turn(calls, args.runs)
    print_table(
        ["builder", "links", "seconds", "squidpy links", "squidpy seconds"],
        [
            [name, *(text for tool in ("leukokit", "squidpy") for text in _row(row.get(tool)))]
            for name, row in figures.items()
        ],
    )
    write_figures(args.json, {"cells": args.cells, "runs": args.runs, "medians": figures})


def crowded_field(count: int, seed: int) -> Any:
    """``Cells`` of about one diameter at random places, one in a hundred a leukocyte."""
    from leukokit.cells import Cells

    rng = np.random.default_rng(seed)
    side = DIAMETER * np.sqrt(count * np.pi * 3**2 / NEIGHBOURS)
    middle = rng.random((count, 2)) * side
    half = rng.uniform(0.45, 0.55, (count, 2)) * DIAMETER
    kinds = rng.choice(3, count, p=[0.01, 0.95, 0.04])
    boxes = np.hstack([middle - half, middle + half]).astype(np.float32)
    return Cells(boxes, kinds, rng.random(count, np.float32))


def squidpy_calls(cells: Any) -> dict[str, Callable[[], Any]] | None:
    """What makes the same links, by builder; None where squidpy is not installed."""
    warnings.simplefilter("ignore")
    try:
        import squidpy
        from anndata import AnnData
    except ImportError:
        print("squidpy is not installed here: leukokit alone is measured")
        return None

    data = AnnData(obsm={"spatial": cells.centres})
    ruler = cells.ruler_px

    # It says what it does at every call; that is no part of the measurement.
    logging.disable(logging.INFO)
    link = partial(squidpy.gr.spatial_neighbors, data, coord_type="generic", copy=True)
    return {
        "knn": partial(link, n_neighs=6),
        "radius": partial(link, radius=3.0 * ruler),
        "delaunay": partial(link, delaunay=True, radius=(0.0, 4.0 * ruler)),
    }


def in_turn(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, dict[str, float]]:
    """Links and median seconds of each; one after the other in every round, so that loads are shared."""
    links = {tool: count(call()) for tool, call in calls.items()}
    spent: dict[str, list[float]] = {tool: [] for tool in calls}
    for _ in range(runs):
        for tool, call in calls.items():
            started = time.perf_counter()
            call()
            spent[tool].append(time.perf_counter() - started)
    return {tool: {"links": links[tool], "seconds": median(spent[tool])} for tool in calls}


def count(answer: Any) -> int:
    """Undirected links of a ``CellGraph``, or of squidpy's matrices, whose nearest cells are directed."""
    if hasattr(answer, "edges"):
        return int(answer.edges.shape[1])
    linked = answer[0]
    return int((linked + linked.T).nnz) // 2


def _row(row: dict[str, float] | None) -> list[str]:
    return ["-", "-"] if row is None else [f"{row['links']:,}", f"{row['seconds']:.2f}"]


if __name__ == "__main__":
    main()
