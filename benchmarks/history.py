"""The page of the documentation that shows the recorded runs of the benchmarks, and its drawings."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from records import BENCHMARKS, drawn_figures, read_runs

INTRODUCTION = """# Benchmarks

`python benchmarks/run.py NAME` measures and records ([benchmarks/README.md](../../benchmarks/README.md)). The
command above a table made its runs. Runs on different machines do not compare.
"""


def page() -> str:
    """Return the page as Markdown; it expects the drawing of NAME as ``benchmarks/NAME.svg`` beside it."""
    parts = [INTRODUCTION]
    for name, benchmark in BENCHMARKS.items():
        runs = read_runs(name)
        parts.append(f"## {benchmark.title}\n")
        if not runs:
            parts.append(f"Not recorded yet (`python benchmarks/run.py {name}`).\n")
            continue
        arguments = " ".join((f"python benchmarks/{name}.py", *benchmark.arguments))
        parts.append(f"`{arguments}`\n")
        if len(runs) > 1:
            parts.append(f"![{benchmark.title}, by commit](benchmarks/{name}.svg)\n")
        parts.append(_table(runs, drawn_figures(name), benchmark.unit))
    return "\n".join(parts)


def drawings() -> dict[str, str]:
    """Return an SVG by name for each benchmark of which more than one run was recorded."""
    return {name: _draw(name) for name in BENCHMARKS if len(read_runs(name)) > 1}


def _table(
    runs: Sequence[Mapping[str, Any]], series: Mapping[str, list[tuple[int, float]]], unit: str
) -> str:
    """Return a table with a row per run, the newest first, and a column per figure."""
    columns = {path: dict(points) for path, points in series.items()}
    names = [_short(path, columns) for path in columns]
    lines = [
        "| commit | date | machine | " + " | ".join(f"{name}, {unit}" for name in names) + " |",
        "|---|---|---|" + "---:|" * len(names),
    ]
    for number in reversed(range(len(runs))):
        run = runs[number]
        values = [f"{points[number]:g}" if number in points else "" for points in columns.values()]
        cells = [run["commit"], run["date"], describe(run["machine"]), *values]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def describe(machine: Mapping[str, Any]) -> str:
    """Return a machine in a few words."""
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    return f"{machine['processor']}, {cores}, load {machine['load_at_start']}"


def _short(path: str, paths: Mapping[str, Any]) -> str:
    """Return the parts of a figure's path that tell it from the others."""
    split = [other.split("/") for other in paths]
    parts = path.split("/")
    kept = [part for at, part in enumerate(parts) if len({tuple(other[at : at + 1]) for other in split}) > 1]
    return " ".join(kept) or parts[-1]


def _draw(name: str) -> str:
    """Draw the figures of a benchmark over its runs."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    series = drawn_figures(name)
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for path, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=_short(path, series))
    axes.set_xticks(range(len(read_runs(name))), [run["commit"] for run in read_runs(name)])
    axes.set_ylim(bottom=0)
    axes.set_ylabel(BENCHMARKS[name].unit)
    axes.legend(fontsize="small")
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
