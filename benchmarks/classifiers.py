"""Time of telling the leukocytes' classes, beside that of finding the cells.

On one field: the drawn example, or any image. Reading, detection and the graph are timed once a round, then
every classifier on the same graph; medians of ``--runs`` rounds, after one that is not counted.

    python benchmarks/classifiers.py [--image examples/smear.png] [--runs 7] [--device cpu] [--json FILE]
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

EXAMPLE = Path(__file__).parents[1] / "examples" / "smear.png"


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--image", type=Path, default=EXAMPLE, help="a field (default: the drawn example)")
    parser.add_argument("--runs", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("needs at least one round")

    from leukokit.config import PipelineConfig
    from leukokit.pipeline import Pipeline
    from leukokit.registry import classifiers
    from leukokit.taxonomy import LEUKOCYTE

    pipeline = Pipeline.from_config(PipelineConfig(classifier=None), args.device)
    smear = pipeline.read(args.image)
    cells = pipeline.detect(smear)
    graph = pipeline.build(cells)
    leukocytes = int((cells.kinds == LEUKOCYTE).sum())
    if not leukocytes:
        raise SystemExit(f"{args.image}: no leukocyte was found; choose another image")
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: pipeline.read(args.image),
        "detect": lambda: pipeline.detect(smear),
        "graph": lambda: pipeline.build(cells),
    }
    for name in ("altarawneh", "cnn", "hybrid"):
        classifier = classifiers.get(name)(device=pipeline.device)
        calls[name] = partial(classifier.classify, [smear], [graph])
    seconds = {name: median(times) for name, times in in_turn(calls, args.runs).items()}
    print(f"{args.image.name}: {len(cells)} cells, {leukocytes} leukocytes, {pipeline.device}")
    print_table(
        ["stage", "ms per field", "ms per leukocyte"],
        [[name, f"{1e3 * s:.1f}", f"{1e3 * s / leukocytes:.2f}"] for name, s in seconds.items()],
    )
    figures = {"cells": len(cells), "leukocytes": leukocytes, "device": pipeline.device, "seconds": seconds}
    write_figures(args.json, figures)


def in_turn(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Seconds of each call; one after the other in every round, so that loads are shared."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(runs + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number:
                spent[name].append(time.perf_counter() - started)
    return spent


if __name__ == "__main__":
    main()
