"""Files written whole or not at all, under a temporary name that is then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from leukokit._text import printable
from leukokit.errors import FileNameError, OutputError

_PARTIAL: Final = re.compile(r"\.leukokit-[0-9a-f]{16}\.part")
_NAME_ERRORS: Final = frozenset(
    {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
)
"""Errors that concern one name; others, such as a full disk, concern all."""


def partial_path(path: Path) -> Path:
    """Return a name in the same folder for a file while it is written; nobody else has or guesses it."""
    return path.with_name(f".leukokit-{secrets.token_hex(8)}.part")


def remove_partial_files(folder: Path) -> None:
    """Remove the unfinished files that a killed process left; call it only when nothing writes there."""
    for path in folder.glob(".leukokit-*.part"):
        if _PARTIAL.fullmatch(path.name):
            # A file that cannot be removed does no harm.
            with contextlib.suppress(OSError):
                path.unlink()


def read_regular_file(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the bytes of a file, and never wait for a pipe or read a device without end.

    Args:
        path: the file.
        max_bytes: a larger file is refused.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError: it is larger, or its name holds a NUL.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as stream:
        content = stream.read() if max_bytes is None else stream.read(max_bytes + 1)
    if max_bytes is not None and len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes // 1_000_000} MB")
    return content


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader never sees half a file.

    Raises:
        FileNameError: the file cannot have this name.
        OutputError: the disk is full, the folder may not be written to, ...
    """
    partial = partial_path(path)
    # A name on disk may hold bytes that are no text; JSON reads them back from the escape.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        with partial.open("xb") as stream:
            stream.write(data)
        partial.replace(path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError | ValueError) -> OutputError:
    """Return the error that names the file that could not be written, and the reason."""
    if not isinstance(error, OSError):
        return FileNameError(f"{printable(path)}: cannot be written ({error}); rename the image")
    said = f"{printable(path)}: cannot be written ({error.strerror})"
    if error.errno == errno.ENAMETOOLONG:
        return FileNameError(f"{said}; rename the image, or choose an --out with a shorter path")
    if error.errno in _NAME_ERRORS:
        return FileNameError(f"{said}; rename the image, or what stands there")
    return OutputError(f"{said}; free space or choose another --out")


def make_folder(out: Path) -> None:
    """Make an output folder if it does not exist.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{printable(out)}: cannot make the folder ({error.strerror}); choose another --out"
        ) from error


def flush_to_disk(paths: Iterable[Path]) -> None:
    """Wait until files, and their names in their folders, are on the disk; those that are gone are skipped.

    Raises:
        OutputError: the disk fails.
    """
    paths = list(paths)
    for path in [*paths, *dict.fromkeys(path.parent for path in paths)]:
        # Windows opens no folders.
        if os.name == "nt" and path.is_dir():
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise write_error(path, error) from error
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems cannot, and then promise nothing.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise write_error(path, error) from error
        finally:
            os.close(descriptor)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, without following links to folders."""
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)
