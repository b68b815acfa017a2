"""The manifest of a batch: what became of every image, in SQLite, safe at any moment.

The manifest is all that a stopped batch needs to resume, and all that tables and report are made of: a batch
that was stopped and one that was not write the same files. An image is in it wholly or not at all, and only
when its files are on the disk.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from leukokit._files import flush_to_disk, make_folder
from leukokit._text import printable
from leukokit.batch.manifest_files import (
    MANIFEST_NAME,
    MANIFEST_SCHEMA,
    PARTS,
    changes,
    is_batch_folder,
    lock_folder,
    query_manifest,
    readable_manifest,
)
from leukokit.batch.records import Entry, Record, SavedFile, Thumbnail, stamp_of, unpack
from leukokit.errors import ConfigError, OutputError
from leukokit.images.inputs import FoundImage

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS plan (name BLOB PRIMARY KEY, place INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    name BLOB PRIMARY KEY, size INTEGER, changed INTEGER, stem BLOB, error TEXT NOT NULL, document BLOB);
CREATE TABLE IF NOT EXISTS thumbnails (
    name BLOB NOT NULL, cell INTEGER NOT NULL, label TEXT NOT NULL, probability REAL NOT NULL,
    jpeg BLOB NOT NULL, PRIMARY KEY (name, cell));
CREATE TABLE IF NOT EXISTS files (name BLOB NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS files_of_image ON files (name);
CREATE TABLE IF NOT EXISTS protected (path BLOB PRIMARY KEY);
"""
_OF_IMAGES: Final = ("plan", "images", "thumbnails", "files")


class Manifest:
    """The manifest of an output folder, held by one process at a time.

    Args:
        out: the folder; made where it does not exist.
        settings: what decides the results. A manifest made with others is refused.
        restart: forget what an earlier run left.
        protected: paths below the folder that no writer may replace; see ``protected_paths``.

    Raises:
        OutputError: another process works on the folder, it cannot be written to, or the manifest is damaged.
        ConfigError: an earlier run had other settings; says which.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        restart: bool = False,
        protected: Collection[str] = (),
    ) -> None:
        self.out = out
        make_folder(out)
        if (out / MANIFEST_NAME).exists() and not (is_batch_folder(out) and (out / MANIFEST_NAME).is_file()):
            raise OutputError(
                f"{printable(out / MANIFEST_NAME)}: is not the manifest of a batch; choose another --out"
            )
        self._lock = lock_folder(out)
        self._forgotten: set[bytes] = set()
        try:
            if restart:
                self._forgotten = {name for (name,) in query_manifest(out, "SELECT name FROM plan")}
                self._remove()
            with self._reported():
                # Used by one thread at a time: the one that records, and after it the one that reads.
                self._base = sqlite3.connect(
                    out / MANIFEST_NAME, check_same_thread=False, isolation_level=None
                )
                self._base.execute("PRAGMA journal_mode=WAL")
                # A power cut may cost the last images their place, never the manifest its order.
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._base.executescript(_TABLES)
                self._file = (out / MANIFEST_NAME).stat().st_ino
            self._compare({"schema": MANIFEST_SCHEMA, **settings})
            self._protect(protected)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        if hasattr(self, "_base"):
            self._base.close()
        self._lock.close()

    def discard(self) -> None:
        """Remove it from the folder, and let go of that."""
        with closing(self._lock):
            self._base.close()
            self._remove()

    def require_present(self) -> None:
        """Make sure that the manifest is still in its folder.

        Raises:
            OutputError: it, or the folder, was removed or replaced while the batch ran.
        """
        with suppress(OSError):
            if (self.out / MANIFEST_NAME).stat().st_ino == self._file:
                return
        name = printable(self.out / MANIFEST_NAME)
        raise OutputError(f"{name}: was removed while the batch ran; run it again with --restart")

    def is_done(self, image: FoundImage) -> bool:
        """Return whether the image and its saved files are as they were when it was done.

        Failed images are tried again.
        """
        key = _key(image.relative)
        with self._reported():
            row = self._base.execute(
                "SELECT size, changed, stem FROM images WHERE name = ? AND error = ''", (key,)
            ).fetchone()
            files = self._base.execute("SELECT path, size FROM files WHERE name = ?", (key,)).fetchall()
        if row is None or row != (*(stamp_of(image.path) or (None, None)), _key(image.stem_path)):
            return False
        return all(_has_size(self.out / os.fsdecode(path), size) for path, size in files)

    def record(self, records: Sequence[Record]) -> None:
        """Store what became of images, in place of what became of them earlier.

        Their files reach the disk first: after a power cut no image is called done whose files are not there.

        Raises:
            OutputError: the disk is full, ...; the manifest is as it was before.
        """
        saved = [self.out / file.path for record in records for file in record.files]
        if saved:
            flush_to_disk(saved)
        stale: set[bytes] = set()
        with self._transaction():
            for record in records:
                stale |= self._replace(record)
        # Files of an earlier run of the same images, saved under other names.
        for path in stale:
            with suppress(OSError):
                (self.out / os.fsdecode(path)).unlink()

    def plan(self, images: Iterable[tuple[int, FoundImage]]) -> int:
        """Set which images the batch is about, each with its place in the tables; others are left out.

        Returns:
            How many images of an earlier plan, be it forgotten, are in it no more.
        """
        rows = [(_key(image.relative), place) for place, image in images]
        with self._transaction():
            before = {name for (name,) in self._base.execute("SELECT name FROM plan")}
            self._base.execute("DELETE FROM plan")
            self._base.executemany("INSERT INTO plan VALUES (?, ?)", rows)
        return len((before | self._forgotten) - {name for name, _ in rows})

    def names(self) -> list[Path]:
        """Return the planned images, in order."""
        with self._reported():
            rows = self._base.execute("SELECT name FROM plan ORDER BY place, name").fetchall()
        return [Path(os.fsdecode(name)) for (name,) in rows]

    def entries(self) -> Iterator[Entry]:
        """Yield what became of every planned image, in order; of those that wait, only the name."""
        with self._reported():
            rows = self._base.execute(
                "SELECT plan.name, images.error, images.document FROM plan LEFT JOIN images USING (name) "
                "ORDER BY plan.place, plan.name"
            )
            for name, error, packed in rows:
                document, cells = (None, "") if packed is None else unpack(packed)
                yield Entry(Path(os.fsdecode(name)), document, error or "", cells)

    def missing_files(self) -> Iterator[SavedFile]:
        """Yield the files that were saved of planned images and are no longer there, or not whole."""
        with self._reported():
            rows = self._base.execute("SELECT path, size FROM files JOIN plan USING (name) ORDER BY place")
            for path, size in rows:
                if not _has_size(self.out / os.fsdecode(path), size):
                    yield SavedFile(os.fsdecode(path), size)

    def remember(self, facts: Mapping[str, Any]) -> None:
        """Store facts of the run that do not decide its results, in place of earlier ones."""
        rows = [(key, json.dumps(value, default=str)) for key, value in facts.items()]
        with self._transaction():
            self._base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def facts(self) -> dict[str, Any]:
        """Return what was remembered."""
        with self._reported():
            rows = self._base.execute("SELECT key, value FROM facts")
            return {key: json.loads(value) for key, value in rows}

    def absorb(self, folder: Path) -> dict[str, Any]:
        """Take over what another batch of the same settings has done.

        Args:
            folder: that batch's output folder; no batch works on it. It may be read-only.

        Returns:
            Its facts.

        Raises:
            ConfigError: both have done the same image.
            OutputError: it cannot be stored, or is in use.
        """
        with self._reported(folder), readable_manifest(folder, self.out) as path:
            self._base.execute("ATTACH DATABASE ? AS other", (os.fspath(path),))
            try:
                self._require_apart(folder)
                with self._transaction(folder):
                    for table in _OF_IMAGES:
                        self._base.execute(
                            f"INSERT INTO main.{table} SELECT * FROM other.{table} "
                            "WHERE name IN (SELECT name FROM other.plan)"
                        )
                rows = self._base.execute("SELECT key, value FROM other.facts").fetchall()
            finally:
                self._base.execute("DETACH DATABASE other")
            return {key: json.loads(value) for key, value in rows}

    def thumbnails(self, most: int) -> Iterator[Thumbnail]:
        """Yield the least certain leukocytes of each label, at most ``most`` per label, in order."""
        with self._reported():
            # Ranked without their pictures, which would all be sorted, too.
            rows = self._base.execute(
                "SELECT name, cell, label, probability, jpeg FROM thumbnails JOIN ("
                "SELECT rowid AS chosen, row_number() OVER ("
                "PARTITION BY label ORDER BY probability, name, cell) AS place FROM thumbnails "
                "WHERE name IN (SELECT name FROM plan)) ON thumbnails.rowid = chosen "
                "WHERE place <= ? ORDER BY label, place",
                (most,),
            )
            for name, *rest in rows:
                yield Thumbnail(Path(os.fsdecode(name)), *rest)

    def _require_apart(self, folder: Path) -> None:
        twice = self._base.execute(
            "SELECT name FROM other.plan WHERE name IN (SELECT name FROM main.plan) ORDER BY place LIMIT 1"
        ).fetchone()
        if twice:
            raise ConfigError(
                f"{printable(folder)}: {printable(os.fsdecode(twice[0]))} is in another batch, too; "
                "merge shards of one folder, each once"
            )

    def _replace(self, record: Record) -> set[bytes]:
        """Store one record; returns the files of an earlier one that this one does not have."""
        key = _key(record.image.relative)
        earlier = {path for (path,) in self._base.execute("SELECT path FROM files WHERE name = ?", (key,))}
        for table in ("images", "thumbnails", "files"):
            self._base.execute(f"DELETE FROM {table} WHERE name = ?", (key,))
        if record.packed is None:
            # A cause may quote a name that holds bytes that are no text.
            row = (None, None, None, printable(record.error) or "failed", None)
        else:
            stem = _key(record.image.stem_path)
            row = (*(record.stamp or (None, None)), stem, "", record.packed)
        files = [(os.fsencode(file.path), file.size) for file in record.files]
        self._base.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)", (key, *row))
        self._base.executemany("INSERT INTO files VALUES (?, ?, ?)", [(key, *file) for file in files])
        self._base.executemany(
            "INSERT INTO thumbnails VALUES (?, ?, ?, ?, ?)",
            [(key, t.cell, printable(t.label), t.probability, t.jpeg) for t in record.thumbnails],
        )
        kept = {path for path, _ in files}
        return {path for path in earlier - kept if not self._is_saved(path)}

    def _is_saved(self, path: bytes) -> bool:
        """Return whether an image, of whatever name, has this file."""
        return bool(self._base.execute("SELECT 1 FROM files WHERE path = ? LIMIT 1", (path,)).fetchone())

    def _protect(self, paths: Collection[str]) -> None:
        with self._transaction():
            self._base.execute("DELETE FROM protected")
            rows = [(os.fsencode(path),) for path in paths]
            self._base.executemany("INSERT OR IGNORE INTO protected VALUES (?)", rows)

    def _remove(self) -> None:
        for name in PARTS:
            (self.out / name).unlink(missing_ok=True)

    def _compare(self, settings: Mapping[str, Any]) -> None:
        with self._reported():
            rows = self._base.execute("SELECT key, value FROM run").fetchall()
            earlier = {key: json.loads(value) for key, value in rows}
        if not earlier:
            with self._transaction():
                self._base.executemany(
                    "INSERT INTO run VALUES (?, ?)",
                    [(key, json.dumps(value, default=str)) for key, value in settings.items()],
                )
            return
        changed = changes(earlier, settings)
        if changed:
            command = self.facts().get("command", "")
            raise ConfigError(
                f"{printable(self.out)}: holds a batch of other settings ({'; '.join(changed[:4])}); "
                "undo the changes, choose another --out, or discard it with --restart"
                + (f". It was made by: {command}" if command else "")
            )

    @contextmanager
    def _transaction(self, read: Path | None = None) -> Iterator[None]:
        with self._reported(read):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _reported(self, read: Path | None = None) -> Iterator[None]:
        """Report errors of the manifest, or of the one in the folder ``read``, as a user should see them."""
        try:
            yield
        except sqlite3.ProgrammingError:
            # A fault of the code, not of the file.
            raise
        except sqlite3.OperationalError as error:
            path = printable(self.out / MANIFEST_NAME)
            if not (self.out / MANIFEST_NAME).is_file():
                raise OutputError(f"{path}: is not a file, or was removed; choose another --out") from error
            raise OutputError(
                f"{path}: cannot be written ({error}); free space, then run the same command again"
            ) from error
        except (sqlite3.DatabaseError, zlib.error, ValueError) as error:
            raise OutputError(
                f"{printable((read or self.out) / MANIFEST_NAME)}: is damaged ({error}); "
                "do that batch again with --restart"
            ) from error


def count_done(out: Path, images: Iterable[FoundImage]) -> int:
    """Return of how many images the batch in a folder has results; 0 where it holds none that can be read."""
    rows = query_manifest(out, "SELECT name, size, changed FROM images WHERE error = ''")
    done = {name: stamp for name, *stamp in rows}
    return sum(done.get(_key(image.relative)) == [*(stamp_of(image.path) or ())] for image in images)


def _key(name: Path) -> bytes:
    # A name on disk may hold bytes that are no text.
    return os.fsencode(name.as_posix())


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
