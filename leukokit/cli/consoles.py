"""Where commands print."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console

WIDE: Final = 1000
"""Columns of a file or a pipe, which has no width: no line is broken there, and no name cut."""


def make_console(stream: IO[str] | Any = None, *, stderr: bool = False, quiet: bool = False) -> Console:
    """Return the console of a stream, by default of standard output; one that is no terminal is wide."""
    from rich.console import Console

    console = Console(file=stream, stderr=stderr, quiet=quiet, highlight=False)
    # Not rich's own answer, which FORCE_COLOR changes.
    if not console.file.isatty():
        console.width = WIDE
    return console
