"""The files of a manifest: its lock, and reading one that this process does not hold."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from leukokit._files import files_below
from leukokit._text import printable
from leukokit.errors import ConfigError, OutputError

MANIFEST_NAME: Final = "manifest.sqlite"
LOCK: Final = "manifest.lock"
PARTS: Final = (MANIFEST_NAME, f"{MANIFEST_NAME}-wal", f"{MANIFEST_NAME}-shm", f"{MANIFEST_NAME}-journal")
"""What SQLite keeps of a manifest."""
MANIFEST_SCHEMA: Final = 4


def lock_folder(folder: Path) -> sqlite3.Connection:
    """Return a database that only one process may hold; the system lets go of it when a process dies.

    Raises:
        OutputError: another process holds it, it cannot be written to, or the file system has no locks.
    """
    if (folder / LOCK).exists() and not (folder / LOCK).is_file():
        raise OutputError(f"{printable(folder / LOCK)}: is not a file; choose another --out")
    try:
        lock = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise OutputError(
                f"{printable(folder)}: cannot be written to ({error}); choose another --out"
            ) from error
        if not _has_locks(folder):
            raise OutputError(
                f"{printable(folder)}: its file system does not lock files (a network drive without a lock "
                "service?); choose an --out on a local disk"
            ) from error
        raise OutputError(
            f"{printable(folder)}: another batch works on this folder; wait for it or choose another --out"
        ) from error
    except sqlite3.DatabaseError as error:
        raise OutputError(
            f"{printable(folder / LOCK)}: is damaged ({error}); delete it, then run the same command again"
        ) from error
    return lock


def _has_locks(folder: Path) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_batch_folder(out: Path) -> bool:
    """Return whether a batch works or worked in a folder."""
    return (out / LOCK).exists() or bool(query_manifest(out, "SELECT value FROM run WHERE key = 'schema'"))


def protected_paths(out: Path) -> frozenset[str]:
    """Return the paths below a folder that no writer may replace: files that were there before any batch."""
    if is_batch_folder(out):
        return frozenset(os.fsdecode(path) for (path,) in query_manifest(out, "SELECT path FROM protected"))
    below = (path.relative_to(out).as_posix() for path in files_below(out))
    return frozenset(path for path in below if path not in PARTS)


def settings_of(out: Path) -> dict[str, Any]:
    """Return the settings of the batch that a folder holds.

    Raises:
        ConfigError: it holds none that this release can read.
    """
    path = out / MANIFEST_NAME
    try:
        if not path.is_file():
            raise ConfigError(f"{printable(out)}: holds no batch; name a folder written by 'leukokit batch'")
        with _open_to_read(out) as base:
            settings = {key: json.loads(value) for key, value in base.execute("SELECT key, value FROM run")}
    except (sqlite3.Error, OSError, ValueError) as error:
        raise ConfigError(f"{printable(path)}: cannot be read as a batch's manifest ({error})") from error
    if settings.pop("schema", None) != MANIFEST_SCHEMA:
        raise ConfigError(f"{printable(path)}: was written by another version of leukokit; run it again")
    return settings


def query_manifest(out: Path, query: str) -> list[tuple[Any, ...]]:
    """Return what the manifest in a folder answers; nothing where it holds none that can be read."""
    try:
        if not (out / MANIFEST_NAME).is_file():
            return []
        with _open_to_read(out) as base:
            return base.execute(query).fetchall()
    except (sqlite3.Error, OSError):
        return []


@contextmanager
def readable_manifest(folder: Path, out: Path) -> Iterator[Path]:
    """Hold the manifest of a folder for reading; one in a read-only folder is copied below ``out``.

    Raises:
        OutputError: another process holds it.
    """
    if os.access(folder, os.W_OK):
        with closing(lock_folder(folder)):
            yield folder / MANIFEST_NAME
        return
    with _copied(folder, out) as path:
        yield path


@contextmanager
def _open_to_read(folder: Path) -> Iterator[sqlite3.Connection]:
    if os.access(folder, os.W_OK):
        with closing(sqlite3.connect(folder / MANIFEST_NAME)) as base:
            yield base
        return
    # SQLite reads a log beside a database only where it may write to the folder.
    with _copied(folder, None) as path, closing(sqlite3.connect(path)) as base:
        yield base


@contextmanager
def _copied(folder: Path, near: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=near, prefix=".leukokit-") as place:
        for name in (MANIFEST_NAME, f"{MANIFEST_NAME}-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(folder / name, Path(place, name))
        yield Path(place, MANIFEST_NAME)


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ, each as ``a.b: 1 is now 2``."""
    return sorted(_changes(dict(earlier), json.loads(json.dumps(now, default=str))))


def _changes(earlier: Any, now: Any, where: str = "") -> Iterator[str]:
    if isinstance(earlier, dict) and isinstance(now, dict):
        for key in {*earlier, *now}:
            yield from _changes(earlier.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif earlier != now:
        yield f"{where}: {_one_value(earlier)} is now {_one_value(now)}"


def _one_value(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
