"""What ``leukokit batch`` shows while it works and at its end: on the terminal and in a log file."""

from __future__ import annotations

import logging
import os
import signal
import sys
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
SECONDS_PER_LINE: Final = 30.0
"""Seconds between two lines of progress where no terminal shows a bar."""
_log = logging.getLogger("leukokit")


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a line on stderr, as the command's other errors are."""
        from leukokit._text import printable

        # Whoever reads it may have had enough: no reason to stop.
        with suppress(OSError, ValueError):
            typer.echo(f"{record.levelname.lower()}: {printable(record.getMessage())}", err=True)


class _LogFile(logging.FileHandler):
    """A log file; a disk that is full costs its lines, not the batch."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Warn once, and write no more."""
        _log.removeHandler(self)
        _log.warning(
            "--log %s: cannot be written any more, after: %s", self.baseFilename, record.getMessage()
        )

    def close(self) -> None:
        """Close the file; what cannot be written is lost."""
        with suppress(OSError):
            super().close()


class _Progress:
    """Images done, failures and time left: a bar on a terminal, a line now and then in a file."""

    def __init__(self, quiet: bool) -> None:
        self.latest: BatchProgress | None = None
        self._quiet = quiet
        self._bar = _Bar() if sys.stderr.isatty() and not quiet else None
        self._started = self._reported = time.monotonic()

    def show(self, progress: BatchProgress) -> None:
        """Show how far the batch is."""
        is_first, self.latest = self.latest is None, progress
        now = time.monotonic()
        if is_first:
            self._started = self._reported = now
            if progress.done_before:
                self._print(f"resuming: {progress.done_before} images are done already")
        processed = progress.done - progress.done_before + progress.failed
        rate = processed / max(now - self._started, 1e-6)
        if self._bar is not None:
            self._bar.update(progress, f"{rate:.1f}/s" if processed else "")
        elif now - self._reported >= SECONDS_PER_LINE:
            self._reported = now
            failed = f", {progress.failed} failed" if progress.failed else ""
            self._print(f"{progress.done} of {progress.total} images done{failed}, {rate:.1f}/s")

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _print(self, line: str) -> None:
        if self._quiet:
            return
        with suppress(OSError, ValueError):
            typer.echo(line, err=True)


class _Bar:
    def __init__(self) -> None:
        from rich import progress as bars
        from rich.console import Console

        self._bar = bars.Progress(
            bars.TextColumn("images"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[failed]}"),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._bar.add_task("images", total=None, rate="", failed="")

    def update(self, progress: BatchProgress, rate: str) -> None:
        self._bar.start()
        self._bar.update(
            self._task,
            total=progress.total,
            completed=progress.done + progress.failed,
            rate=rate,
            failed=f"{progress.failed} failed" if progress.failed else "",
        )

    def stop(self) -> None:
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
        file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
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
    with console.capture() as captured:
        _print_counts(console, summary, target)
        for line in summary.attention:
            console.print(printable(line), style="yellow", markup=False)
        if waiting := summary.whole.differential.without_class:
            wait = "1 leukocyte waits" if waiting == 1 else f"{waiting:,} leukocytes wait"
            console.print(f"{wait} for a person: leukokit review {printable(out)}", markup=False)
        console.print("Research use only; not a medical device.", style="dim")
    names = ", ".join(path.name for path in summary.files)
    if quiet:
        return
    try:
        typer.echo(captured.get() + f"wrote {printable(out)}/{names}")
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it had enough: the results are written all the same.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
