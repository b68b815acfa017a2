"""What ``leukokit batch`` shows while it works and at its end: on the terminal and in a log file."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from leukokit.batch import BatchProgress, BatchSummary

SHORT: Final = {
    **{"neutrophil": "neut.", "lymphocyte": "lymph.", "monocyte": "mono.", "eosinophil": "eos."},
    **{"basophil": "baso.", "immature granulocyte": "IG", "erythroblast": "NRBC", "unclassified": "unclass."},
}
"""What laboratories write above narrow columns."""
MAX_ROWS: Final = 21
"""Most rows of the table of groups; all groups are in differential.csv."""
_log = logging.getLogger("leukokit")


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a line on stderr, as the command's other errors are."""
        from leukokit._text import printable

        typer.echo(f"{record.levelname.lower()}: {printable(record.getMessage())}", err=True)


class _Progress:
    """A bar on the terminal: images done, failures, time left."""

    def __init__(self, quiet: bool) -> None:
        from rich import progress as bars
        from rich.console import Console

        self.latest: BatchProgress | None = None
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = bars.Progress(
            bars.TextColumn("images"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[failed]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("images", total=None, rate="", failed="")
        self._started = time.monotonic()

    def show(self, progress: BatchProgress) -> None:
        """Show how far the batch is."""
        if self.latest is None:
            self._started = time.monotonic()
            self._bar.start()
            if progress.done_before:
                self._console.print(f"resuming: {progress.done_before} images are done already")
        self.latest = progress
        processed = progress.done - progress.done_before + progress.failed
        rate = processed / max(time.monotonic() - self._started, 1e-6)
        self._bar.update(
            self._task,
            total=progress.total,
            completed=progress.done + progress.failed,
            rate=f"{rate:.1f}/s" if processed else "",
            failed=f"{progress.failed} failed" if progress.failed else "",
        )

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()


@contextmanager
def stoppable(log: Path | None, quiet: bool) -> Iterator[_Progress]:
    """Log what is done within, and stop it in order on Ctrl-C or SIGTERM; at once on a second one.

    Raises:
        OutputError: the log cannot be written.
    """
    progress = _Progress(quiet)
    with ExitStack() as stack:
        _add_handlers(stack, log)
        stack.callback(progress.stop)
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, _interrupt))
        try:
            yield progress
        except KeyboardInterrupt:
            progress.stop()
            latest = progress.latest
            far = f"{latest.done} of {latest.total} images are done" if latest else "no image is done yet"
            _log.error("stopped: %s; the same command continues", far)
            raise typer.Exit(130) from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _exit)
    signal.signal(signal.SIGTERM, _exit)
    raise KeyboardInterrupt


def _exit(_number: int, _frame: FrameType | None) -> None:
    # Worker processes notice that this one is gone.
    os._exit(130)


def _add_handlers(stack: ExitStack, path: Path | None) -> None:
    from leukokit._text import printable
    from leukokit.errors import OutputError

    terminal = _Terminal(logging.WARNING)
    _log.addHandler(terminal)
    stack.callback(_log.removeHandler, terminal)
    if path is None:
        return
    # What is wrong with it, opening it tells.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(
            f"--log {printable(path)}: cannot be written ({error.strerror}); choose another file"
        ) from error
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.addHandler(file)
    _log.setLevel(logging.INFO)
    stack.callback(file.close)
    stack.callback(_log.setLevel, logging.NOTSET)
    stack.callback(_log.removeHandler, file)


def report(problem: str) -> None:
    """Print an error that does not end the command."""
    typer.echo(f"error: {problem}", err=True)


def print_summary(summary: BatchSummary, out: Path, target: int | None, quiet: bool) -> None:
    """Print the counts, what a reader must know about them, and what was written."""
    from rich.console import Console

    from leukokit._text import printable

    console = Console(quiet=quiet, highlight=False)
    _print_counts(console, summary, target)
    for line in summary.attention:
        console.print(printable(line), style="yellow", markup=False)
    console.print("Research use only; not a medical device.", style="dim")
    if not quiet:
        typer.echo(f"wrote {printable(out)}/{', '.join(path.name for path in summary.files)}")


def end(summary: BatchSummary) -> None:
    """End with the exit code of what could not be done.

    Raises:
        typer.Exit: something could not.
    """
    if summary.is_failure:
        raise typer.Exit(1)
    if not summary.is_complete:
        raise typer.Exit(3)


def _print_counts(console: Console, summary: BatchSummary, target: int | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from leukokit._text import printable
    from leukokit.batch.outputs.totals import still_needed

    rows = [*sorted(summary.groups.items()), ("all", summary.whole)]
    classes = list(summary.whole.classes)
    if not console.is_terminal:
        # A file has no width: names of groups must not be cut to one.
        console.width = 200
    table = Table(box=None, header_style="bold", pad_edge=False)
    short = [SHORT.get(name, name) for name in classes]
    for title in ("", "images", "failed", "leuko.", *short, *(["needed"] if target else [])):
        table.add_column(
            Text(title), justify="right" if title else "left", no_wrap=bool(title), overflow="fold"
        )
    for name, group in rows[: MAX_ROWS - 1] + rows[-1:] if len(rows) > MAX_ROWS else rows:
        figures = [group.images, group.failed, group.kinds["leukocyte"], *(group.classes[c] for c in classes)]
        needed = [str(still_needed(group.differential, target))] if target else []
        table.add_row(Text(printable(name) or "."), *(str(figure) for figure in figures), *needed)
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"and {len(rows) - MAX_ROWS} more groups in differential.csv")
    count = summary.differential
    if count is not None and count.below_minimum:
        console.print(
            f"n = {count.n}: a differential count needs 100 classified leukocytes or more.", style="yellow"
        )
