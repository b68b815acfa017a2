"""What ``leukokit batch`` says while it works and when it is through: on the terminal and in a log file."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from leukokit.batch.outputs.tables import Totals
    from leukokit.images.inputs import FoundImage


SHORT: Final = {
    **{"neutrophil": "neut.", "lymphocyte": "lymph.", "monocyte": "mono.", "eosinophil": "eos."},
    **{"basophil": "baso.", "immature granulocyte": "IG", "erythroblast": "NRBC", "unclassified": "unclass."},
}
"""What laboratories write above narrow columns."""


class Journal:
    """Errors on the terminal, and everything, a line each with its time, in a file where one is wanted.

    Args:
        path: the file, added to; None for none.

    Raises:
        OutputError: it cannot be written to.
    """

    def __init__(self, path: Path | None) -> None:
        from leukokit.errors import OutputError

        self._log = logging.getLogger("leukokit")
        try:
            self._file = logging.FileHandler(path, errors="backslashreplace") if path else None
        except OSError as error:
            raise OutputError(
                f"--log {path}: cannot be written ({error.strerror}); choose another file"
            ) from error
        if self._file:
            self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> Journal:
        self._terminal = _Terminal(logging.WARNING)
        self._log.addHandler(self._terminal)
        if self._file:
            self._log.addHandler(self._file)
            self._log.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self._terminal)
        if self._file:
            self._log.removeHandler(self._file)
            self._log.setLevel(logging.NOTSET)
            self._file.close()

    def info(self, message: str) -> None:
        """A line for the file alone."""
        self._log.info(message)

    def error(self, message: str) -> None:
        """A line for both."""
        self._log.error(message)


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """A line on stderr, as the command's other errors are."""
        typer.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


class Progress:
    """A bar on the terminal: images done, failures, time left."""

    def __init__(self, console: Console, journal: Journal, total: int) -> None:
        from rich import progress as bars

        self.failures = 0
        self._journal = journal
        self._bar = bars.Progress(
            bars.TextColumn("images"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[failed]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("images", total=total, rate="", failed="")
        self._begun, self._through, self._total, self._console = time.monotonic(), 0, total, console

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, done: int) -> None:
        """Say what an earlier run has done."""
        self._begun = time.monotonic()
        self._journal.info(f"{self._total} images, {done} of them done before")
        if done:
            self._bar.update(self._task, completed=done)
            self._console.print(f"going on: {done} images were done before")

    def note(self, image: FoundImage, error: str) -> None:
        """An image is through."""
        self._through += 1
        if error:
            self.failures += 1
            self._journal.error(error)
        else:
            from leukokit._text import printable

            self._journal.info(f"{printable(image.path)}: done")
        rate = self._through / max(time.monotonic() - self._begun, 1e-6)
        failed = f"{self.failures} failed" if self.failures else ""
        self._bar.update(self._task, advance=1, rate=f"{rate:.1f}/s", failed=failed)


def conclude(
    console: Console,
    out: Path,
    totals: Totals,
    known: Sequence[str],
    target: int | None,
    quiet: bool,
    parquet: bool,
) -> None:
    """Print the counts, what one should know of them, and what was written."""
    from leukokit.batch.outputs.tables import FILES

    _print_totals(console, totals, target)
    for line in known:
        console.print(line, style="yellow", markup=False)
    console.print("Research use only; not a medical device.", style="dim")
    names = [*FILES, *(["cells.parquet"] if parquet else [])]
    if not quiet:
        typer.echo(f"wrote {out}/{', '.join(names)}")


def _print_totals(console: Console, totals: Totals, target: int | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from leukokit.batch.outputs.tables import still_needed

    rows = [*sorted(totals.groups.items()), ("all", totals.whole)]
    classes = list(totals.whole.classes)
    if not console.is_terminal:
        # A file has no width: names of groups are not to be cut to one.
        console.width = 200
    table = Table(box=None, header_style="bold", pad_edge=False)
    short = [SHORT.get(name, name) for name in classes]
    for title in ("", "images", "failed", "leuko.", *short, *(["lacking"] if target else [])):
        table.add_column(title, justify="right" if title else "left", no_wrap=bool(title), overflow="fold")
    for name, group in rows[:20] + rows[-1:] if len(rows) > 21 else rows:
        figures = [group.images, group.failed, group.kinds["leukocyte"], *(group.classes[c] for c in classes)]
        needed = [str(still_needed(group.count, target))] if target else []
        table.add_row(Text(name or "."), *(str(figure) for figure in figures), *needed)
    console.print(table)
    if len(rows) > 21:
        console.print(f"and {len(rows) - 21} more groups in differential.csv")
    if totals.whole.classes and totals.whole.count.below_minimum:
        said = f"n = {totals.whole.count.n}: a differential count wants 100 classified leukocytes or more."
        console.print(said, style="yellow")
