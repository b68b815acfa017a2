"""Counts and labels by every engine, and the largest differences of boxes, scores and probabilities.

The same fields go through the pipeline on torch, ONNX Runtime and OpenVINO. The fields are drawn, or real, of
all laboratories under ../shared/data (``--fields real``).

    python benchmarks/parity.py [--fields drawn|real] [--count 300] [--json FILE]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from harness import print_table, write_figures

from leukokit.cells import Cells
from leukokit.pipeline import Pipeline
from leukokit.smear import Smear, read_smear
from leukokit.synthetic.smear import draw_smear

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("bionet", "txl-pbc", "chula", "chula-rbc12", "bccd", "pbc", "raabin")
ENGINES = ("onnxruntime", "openvino")


@dataclass
class Differences:
    """Of one engine from torch, over all fields; the largest of each."""

    fields: int = 0
    counts: int = 0
    labels: int = 0
    cells: int = 0
    leukocytes: int = 0
    largest: dict[str, float] = field(default_factory=lambda: {"box": 0.0, "score": 0.0, "probability": 0.0})

    def add(self, expected: Cells, found: Cells) -> None:
        """Compare the cells of one field; cells of equal rank are the same."""
        self.fields += 1
        self.cells += len(expected)
        if expected.counts != found.counts:
            self.counts += 1
            return
        own, other = _ordered(expected), _ordered(found)
        self._note("box", own.boxes, other.boxes)
        self._note("score", own.scores, other.scores)
        if own.labelling is not None and other.labelling is not None:
            self.leukocytes += expected.counts["leukocyte"]
            self.labels += own.labelling.labels != other.labelling.labels
            self._note("probability", own.labelling.probabilities, other.labelling.probabilities)

    def _note(self, name: str, expected: np.ndarray, found: np.ndarray) -> None:
        self.largest[name] = max(self.largest[name], float(np.abs(expected - found).max(initial=0)))


def _ordered(cells: Cells) -> Cells:
    """By kind and place: scores that agree to the sixth digit may change places."""
    middle = np.round((cells.boxes[:, :2] + cells.boxes[:, 2:]) / 2)
    return cells[np.lexsort((middle[:, 0], middle[:, 1], cells.kinds))]


def main() -> None:
    """Compare, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--fields", choices=["drawn", "real"], default="drawn")
    parser.add_argument("--count", type=int, default=300, help="fields (default: 300)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    reference = Pipeline(engine="torch", device="cpu")
    others = {name: (Pipeline(engine=name, device="cpu"), Differences()) for name in ENGINES}
    for smear in drawn_fields(args.count) if args.fields == "drawn" else real_fields(args.count):
        expected = reference.run(smear).cells
        for pipeline, differences in others.values():
            differences.add(expected, pipeline.run(smear).cells)
    print_table(
        ["engine", "fields", "cells", "other counts", "other labels", "box px", "score", "probability"],
        [
            [name, *(str(number) for number in (d.fields, d.cells, d.counts, d.labels))]
            + [f"{value:.1e}" for value in d.largest.values()]
            for name, (_, d) in others.items()
        ],
    )
    write_figures(args.json, {name: vars(d) for name, (_, d) in others.items()})


def drawn_fields(count: int) -> Iterator[Smear]:
    """Drawn smears of several magnifications."""
    for seed in range(count):
        yield Smear.from_array(draw_smear(seed, 480, 360, 2, (30.0, 44.0, 60.0)[seed % 3]).image)


def real_fields(count: int) -> Iterator[Smear]:
    """Fields of all laboratories, drawn by lot.

    Raises:
        SystemExit: there are none here.
    """
    rng = random.Random(0)
    for name in SETS:
        folders = [REAL / name / folder for folder in ("images", "JPEGImages")]
        found = sorted(path for folder in folders for path in folder.rglob("*.*"))
        if not found:
            raise SystemExit(f"{REAL / name}: not here; --fields drawn")
        for path in rng.sample(found, min(len(found), -(-count // len(SETS)))):
            yield read_smear(path)


if __name__ == "__main__":
    main()
