"""Files written whole or not at all, under a temporary name that is then renamed."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from leukokit.errors import OutputError


def partial_path(path: Path) -> Path:
    """Return the name of a file while it is being written; two processes never share one."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove_partial_files(folder: Path) -> None:
    """Remove the unfinished files that a killed process left; call it only when nothing writes there."""
    for path in folder.glob(".*.part"):
        if re.search(r"\.\d+\.part$", path.name):
            # A file that cannot be removed does no harm.
            with contextlib.suppress(OSError):
                path.unlink()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader never sees half a file.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = partial_path(path)
    try:
        # A name on disk may hold bytes that are no text; JSON reads them back from the escape.
        partial.write_bytes(
            content.encode(errors="backslashreplace") if isinstance(content, str) else content
        )
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> OutputError:
    """Return the error that names the file that could not be written, and the reason."""
    return OutputError(f"{path}: cannot be written ({error.strerror}); free space or choose another --out")


def make_folder(out: Path) -> None:
    """Make an output folder if it does not exist.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot make the folder ({error.strerror}); choose another --out"
        ) from error
