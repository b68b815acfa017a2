"""Which files of an output folder leukokit wrote, so that it replaces no other."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from leukokit._files import files_below, write_error

RECORD_NAME: Final = ".leukokit-files"
"""Name of the record in an output folder: a SHA-256 and a path per line, as ``sha256sum`` writes them."""


class ForeignFiles:
    """The files in a folder that leukokit did not write, or that were changed since.

    ``"a/x.txt" in foreign`` asks about a path below the folder, with forward slashes.

    Args:
        out: the output folder.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._existing = (
            {path.relative_to(out).as_posix() for path in files_below(out)} if out.is_dir() else set()
        )
        self._recorded = _read_names(out / RECORD_NAME)

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str) or path not in self._existing:
            return False
        expected = self._recorded.get(path)
        return expected is None or expected != _sha256(self._out / path)

    def add(self, paths: Iterable[Path]) -> None:
        """Record files as written by leukokit.

        Raises:
            OutputError: the record cannot be written.
        """
        lines = []
        for path in paths:
            name = path.relative_to(self._out).as_posix()
            self._existing.discard(name)
            # A line break in a name would be another line; such a file counts as foreign the next time.
            if "\n" not in name and (digest := _sha256(path)) is not None:
                lines.append(f"{digest}  {name}\n")
        record = self._out / RECORD_NAME
        try:
            with record.open("ab") as stream:
                stream.write(os.fsencode("".join(lines)))
        except OSError as error:
            raise write_error(record, error) from error


def _read_names(record: Path) -> dict[str, str]:
    """Return the hash of each recorded path; the last line of a path counts."""
    known: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in os.fsdecode(record.read_bytes()).split("\n"):
            digest, _, name = line.partition("  ")
            known[name] = digest
    return known


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None
