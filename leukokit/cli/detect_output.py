"""What ``leukokit detect`` prints for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leukokit._text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from leukokit.differential import Differential
    from leukokit.results import SmearResult
    from leukokit.writers.base import Writer

FEWEST_COLUMNS: Final = 20
"""Least width of the column of names on a terminal."""


def print_row(console: Console, result: SmearResult, first: bool) -> None:
    """Print a result's row of a table that grows, because a folder may take hours."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    counts = result.cells.counts
    diameter = result.cells.erythrocyte_diameter_px
    figures = [
        *(f"{count:>13}" for count in counts.values()),
        f"{'-' if diameter is None else f'{diameter:.0f} px':>9}",
        f"{result.seconds:>6.2f}",
    ]
    titles = [*(f"{kind + 's':>13}" for kind in counts), f"{'diameter':>9}", f"{'s':>6}"]
    width = max(FEWEST_COLUMNS, console.width - len("".join(titles)) - 1)
    if not console.file.isatty():
        width = min(width, 60)
    name = printable(result.smear.path or result.output_stem)
    if console.file.isatty() and cell_len(name) > width:
        # The end of a path tells images apart.
        while cell_len(name) > width - 1:
            name = name[1:]
        name = f"…{name}"
    if cell_len(name) < width:
        name = set_cell_size(name, width)
    if first:
        console.print(Text(set_cell_size("image", width) + "".join(titles), "bold"), soft_wrap=True)
    console.print(Text(name + "".join(figures)), soft_wrap=True)


def print_classes(console: Console, result: SmearResult) -> None:
    """Print the number of leukocytes of each class, broken between entries only."""
    from rich.text import Text

    # Only there is a space that may be a line break.
    entries = [
        printable(f"{name} {count}").replace(" ", "\N{NO-BREAK SPACE}")
        for name, count in result.cells.class_counts.items()
        if count
    ]
    indent = "  "
    lines = textwrap.wrap(
        indent.join(entries), console.width, initial_indent=indent, subsequent_indent=indent
    )
    for line in lines:
        console.print(Text(line.replace("\N{NO-BREAK SPACE}", " ")), no_wrap=True, overflow="ignore")


def print_notes(console: Console, notes: Sequence[str]) -> None:
    """Print what a user should know of a result."""
    for note in notes:
        console.print(f"  note: {printable(note)}", style="yellow", markup=False, soft_wrap=True)


def print_differential(console: Console, count: Differential, images: int) -> None:
    """Print the differential count of all images, and below it what is not in it."""
    from rich.table import Table
    from rich.text import Text

    console.print()
    if count.warning:
        console.print(count.warning, style="bold red", markup=False)
    if count.n:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(f"differential of {images} image{'s' if images > 1 else ''}", no_wrap=True)
        for title in ("n", "%", "bounds" if count.is_withheld else "95% interval"):
            table.add_column(title, justify="right", no_wrap=True)
        for name, share in count.shares.items():
            low, high = count.bounds(name) if count.is_withheld else (share.low, share.high)
            percent = "" if count.is_withheld else f"{share.percent:.1f}"
            table.add_row(Text(printable(name)), str(share.count), percent, f"{low:.1f} - {high:.1f}")
        table.add_row("classified leukocytes", str(count.n), style="bold")
        console.print(table)
    if count.withheld_reason:
        console.print(count.withheld_reason, style="yellow", markup=False)
    if count.below_minimum:
        note = f"n = {count.n}: a differential count needs 100 classified leukocytes or more."
        console.print(note, style="yellow")
    if count.unknown:
        console.print(f"unknown {count.unknown}, to review first; not in the percentages")
    if count.unclassified:
        console.print(f"unclassified {count.unclassified}, to review; not in the percentages")
    if count.erythroblasts:
        per_100 = count.erythroblasts_per_100
        ratio = "" if per_100 is None else f", {per_100:.1f} per 100 leukocytes"
        console.print(f"erythroblasts {count.erythroblasts}{ratio}; not counted as leukocytes")


def print_files(console: Console, writers: Sequence[Writer], earlier: set[Path]) -> None:
    """Print what was written, and which tables about all images it replaced of an ``earlier`` run."""
    from rich.text import Text

    replaced = [
        path.name
        for writer in writers
        if not writer.file_per_image
        for path in writer.files
        if path in earlier
    ]
    for writer in writers:
        if len(writer.files) <= 2:
            for path in writer.files:
                console.print(Text(f"wrote {printable(path)}"), soft_wrap=True)
        elif writer.files:
            line = f"wrote {len(writer.files)} {writer.name} files under {printable(writer.out)}"
            console.print(Text(line), soft_wrap=True)
    if replaced:
        note = f"{', '.join(sorted(replaced))} of an earlier run replaced; --out keeps runs apart"
        console.print(note, style="yellow", markup=False)
    console.print("Research use only; not a medical device.", style="dim")
