"""The benchmarks whose figures are kept, and the files that keep them: ``benchmarks/results/NAME.json``.

A file holds all recorded runs, the newest last; each has its figures, the machine, the commit and the date.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script that writes its figures with ``--json``.

    Attributes:
        title: what is measured.
        arguments: what a recorded run is called with.
        drawn: patterns of the figures that the history draws, as paths such as ``medians/knn/seconds``.
        unit: of the drawn figures.
    """

    title: str
    arguments: tuple[str, ...]
    drawn: tuple[str, ...]
    unit: str


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "batch": Benchmark(
        "Images per second of a folder",
        ("--images", "100", "--runs", "3", "--many", "1000"),
        ("medians/*/images_per_second",),
        "images per second",
    ),
    "classifiers": Benchmark("Time of one field, by stage", (), ("seconds/*",), "seconds"),
    "cold_start": Benchmark(
        "Time of a first command, start-up included", (), ("medians/*/seconds",), "seconds"
    ),
    "graphs": Benchmark("Time of linking 100,000 cells", (), ("medians/*/leukokit/seconds",), "seconds"),
    "large_field": Benchmark(
        "Peak memory of a field of 12,000 x 12,000 pixels", (), ("images/mosaic/peak_mib",), "MiB"
    ),
    "standardize": Benchmark(
        "Time of standardising a field of 1,600 x 1,200 pixels", (), ("medians/1600 x 1200/*",), "ms"
    ),
}


def read_runs(name: str) -> list[dict[str, Any]]:
    """Read the recorded runs of a benchmark, the newest last; none where none was recorded."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return []
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return runs


def add_run(name: str, document: Mapping[str, Any]) -> Path:
    """Add what a script wrote with ``--json`` to the benchmark's file; return the file."""
    figures = {key: value for key, value in document.items() if key != "machine"}
    run = {
        "commit": current_commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "arguments": list(BENCHMARKS[name].arguments),
        "machine": document["machine"],
        "figures": round_figures(figures),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"benchmark": name, "runs": [*read_runs(name), run]}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def current_commit() -> str:
    """Return the short hash of the checked-out commit, with a plus where the checkout has changes."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results"],
        capture_output=True,
        text=True,
        check=True,
    )
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def round_figures(figures: Any) -> Any:
    """Round every number to four significant digits, throughout a JSON document."""
    if isinstance(figures, Mapping):
        return {key: round_figures(value) for key, value in figures.items()}
    if isinstance(figures, float):
        return float(f"{figures:.4g}")
    return figures


def flatten(figures: Mapping[str, Any], above: str = "") -> dict[str, float]:
    """Return the numbers of a nested document by their paths, such as ``medians/knn/seconds``."""
    found: dict[str, float] = {}
    for key, value in figures.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            found |= flatten(value, f"{path}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = value
    return found


def drawn_figures(name: str) -> dict[str, list[tuple[int, float]]]:
    """Return the series that the history draws: path to pairs of the run's number and the figure."""
    series: dict[str, list[tuple[int, float]]] = {}
    for number, run in enumerate(read_runs(name)):
        for path, value in flatten(run["figures"]).items():
            if is_drawn(name, path):
                series.setdefault(path, []).append((number, value))
    return series


def is_drawn(name: str, path: str) -> bool:
    """Whether the history draws a figure of a benchmark."""
    return any(fnmatchcase(path, pattern) for pattern in BENCHMARKS[name].drawn)
