"""The manifest of a batch: what became of every image, in SQLite, safe at any moment.

The manifest is all that a stopped batch needs to go on, and all that tables and report are made of: a batch
that was stopped and one that was not write the same files. An image is in it wholly or not at all.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from leukokit._files import make_folder
from leukokit._text import printable
from leukokit.errors import ConfigError, OutputError
from leukokit.images.inputs import FoundImage

NAME: Final = "manifest.sqlite"
LOCK: Final = "manifest.lock"
SCHEMA: Final = 3
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS plan (name BLOB PRIMARY KEY, place INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    name BLOB PRIMARY KEY, size INTEGER, changed INTEGER, error TEXT NOT NULL, document BLOB);
CREATE TABLE IF NOT EXISTS thumbnails (
    name BLOB NOT NULL, cell INTEGER NOT NULL, label TEXT NOT NULL, probability REAL NOT NULL,
    jpeg BLOB NOT NULL, PRIMARY KEY (name, cell));
"""


Stamp = tuple[int, int] | None
"""Size and time of change by which a file is known again; None for one that is not there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of an image: what tables and report want to know of it, or why there is nothing.

    ``document`` is its JSON (``SmearResult.to_json``) without cells, graph, light and provenance; ``cells``
    are its rows of the table of cells. An image that waits for its turn has neither document nor error.
    """

    name: Path
    document: dict[str, Any] | None
    error: str = ""
    cells: str = ""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A leukocyte for the report's gallery; ``jpeg`` is its crop, ``cell`` its number in the image."""

    name: Path
    cell: int
    label: str
    probability: float
    jpeg: bytes


def pack(document: Mapping[str, Any], cells: str) -> bytes:
    """An image's document and its rows of the table of cells as the manifest keeps them."""
    # A name on disk may hold bytes that are no text.
    text = f"{json.dumps(document, allow_nan=False)}\n{cells}".encode("utf-8", "surrogatepass")
    return zlib.compress(text, 3)


def unpack(packed: bytes) -> tuple[dict[str, Any], str]:
    """Both again."""
    document, _, cells = zlib.decompress(packed).decode("utf-8", "surrogatepass").partition("\n")
    return json.loads(document), cells


class Manifest:
    """The manifest of an output folder, held by one process at a time.

    Args:
        out: the folder; made where it is not there.
        settings: what decides the results. A manifest made with others is refused.
        restart: forget what an earlier run left.

    Raises:
        OutputError: another process works on the folder, it cannot be written to, or the manifest is damaged.
        ConfigError: an earlier run had other settings; says which.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], restart: bool = False) -> None:
        self.out = out
        make_folder(out)
        self._lock = _lock_of(out)
        self._forgotten: set[bytes] = set()
        try:
            if restart:
                self._forgotten = {name for (name,) in _peek(out, "SELECT name FROM plan")}
                self._remove()
            with self._reported():
                # Used by one thread at a time: the one that writes, and after it the one that reads.
                self._base = sqlite3.connect(out / NAME, check_same_thread=False, isolation_level=None)
                self._base.execute("PRAGMA journal_mode=WAL")
                # A power cut may cost the last images their place, never the manifest its order.
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._base.executescript(_TABLES)
            self._compare({"schema": SCHEMA, **settings})
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

    def is_done(self, image: FoundImage) -> bool:
        """Whether the image has its results, and has not changed since. Failed ones are tried again."""
        with self._reported():
            row = self._base.execute(
                "SELECT size, changed FROM images WHERE name = ? AND error = ''", (_key(image.relative),)
            ).fetchone()
        return row is not None and row == stamp_of(image.path)

    def record(self, image: FoundImage, stamp: Stamp, packed: bytes, thumbnails: Sequence[Thumbnail]) -> None:
        """Keep the results of an image, as ``pack`` makes them, in place of earlier ones.

        Args:
            image: the image.
            stamp: its file's, before it was read.
            packed: its document and its cells.
            thumbnails: of its leukocytes.

        Raises:
            OutputError: the disk is full, ...; the manifest is as it was before.
        """
        size, changed = stamp or (None, None)
        self._replace(image.relative, (size, changed, "", packed), thumbnails)

    def record_failure(self, image: FoundImage, error: str) -> None:
        """Keep why an image has no results."""
        # A cause may quote a name that holds bytes that are no text.
        self._replace(image.relative, (None, None, printable(error) or "failed", None), [])

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

    def entries(self) -> Iterator[Entry]:
        """What became of every planned image, in order; nothing of those that wait for their turn."""
        with self._reported():
            rows = self._base.execute(
                "SELECT plan.name, images.error, images.document FROM plan LEFT JOIN images USING (name) "
                "ORDER BY plan.place, plan.name"
            )
            for name, error, packed in rows:
                document, cells = (None, "") if packed is None else unpack(packed)
                yield Entry(Path(os.fsdecode(name)), document, error or "", cells)

    def remember(self, facts: Mapping[str, Any]) -> None:
        """Keep facts of the run that do not decide its results, in place of earlier ones."""
        rows = [(key, json.dumps(value, default=str)) for key, value in facts.items()]
        with self._transaction():
            self._base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def facts(self) -> dict[str, Any]:
        """What was remembered."""
        with self._reported():
            rows = self._base.execute("SELECT key, value FROM facts")
            return {key: json.loads(value) for key, value in rows}

    def absorb(self, folder: Path) -> dict[str, Any]:
        """Take over what another batch of the same settings has done.

        Args:
            folder: that batch's output folder; no batch works on it.

        Returns:
            Its facts.

        Raises:
            ConfigError: both have done the same image.  OutputError: it cannot be kept, or is in use.
        """
        with self._reported(folder), closing(_lock_of(folder)):
            self._base.execute("ATTACH DATABASE ? AS other", (os.fspath(folder / NAME),))
            try:
                twice = self._base.execute(
                    "SELECT name FROM other.plan WHERE name IN (SELECT name FROM main.plan) "
                    "ORDER BY place LIMIT 1"
                ).fetchone()
                if twice:
                    raise ConfigError(
                        f"{printable(folder)}: {printable(os.fsdecode(twice[0]))} is in another batch, too; "
                        "merge shards of one folder, each once"
                    )
                with self._transaction(folder):
                    for table in ("plan", "images", "thumbnails"):
                        self._base.execute(
                            f"INSERT INTO main.{table} SELECT * FROM other.{table} "
                            "WHERE name IN (SELECT name FROM other.plan)"
                        )
                rows = self._base.execute("SELECT key, value FROM other.facts").fetchall()
            finally:
                self._base.execute("DETACH DATABASE other")
            return {key: json.loads(value) for key, value in rows}

    def thumbnails(self, most: int) -> Iterator[Thumbnail]:
        """The least certain leukocytes of each label, at most ``most`` of one, by label and certainty."""
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

    def _replace(self, name: Path, values: tuple[Any, ...], thumbnails: Sequence[Thumbnail]) -> None:
        key = _key(name)
        with self._transaction():
            self._base.execute("DELETE FROM thumbnails WHERE name = ?", (key,))
            self._base.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", (key, *values))
            self._base.executemany(
                "INSERT INTO thumbnails VALUES (?, ?, ?, ?, ?)",
                [(key, t.cell, printable(t.label), t.probability, t.jpeg) for t in thumbnails],
            )

    def _remove(self) -> None:
        for path in self.out.glob(f"{NAME}*"):
            path.unlink()

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
                f"{self.out}: holds a batch of other settings ({'; '.join(changed[:4])}); "
                "take them back, choose another --out, or forget it with --restart"
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
        """Errors of the manifest, or of that in the folder that is ``read``, as a user is to see them."""
        try:
            yield
        except sqlite3.ProgrammingError:
            # A fault of the code, not of the file.
            raise
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{self.out / NAME}: cannot be written ({error}); free space, then run the same command again"
            ) from error
        except (sqlite3.DatabaseError, zlib.error, ValueError) as error:
            raise OutputError(
                f"{(read or self.out) / NAME}: is damaged ({error}); do that batch again with --restart"
            ) from error


def settings_of(out: Path) -> dict[str, Any]:
    """The settings of the batch that a folder holds.

    Raises:
        ConfigError: it holds none that this release can read.
    """
    path = out / NAME
    try:
        if not path.is_file():
            raise ConfigError(f"{printable(out)}: holds no batch; name a folder written by 'leukokit batch'")
        with closing(sqlite3.connect(path)) as base:
            settings = {key: json.loads(value) for key, value in base.execute("SELECT key, value FROM run")}
    except (sqlite3.Error, OSError, ValueError) as error:
        raise ConfigError(f"{printable(path)}: cannot be read as a batch's manifest ({error})") from error
    if settings.pop("schema", None) != SCHEMA:
        raise ConfigError(f"{printable(path)}: was written by another version of leukokit; run it again")
    return settings


def done_before(out: Path, images: Iterable[FoundImage]) -> int:
    """Of how many images the batch in a folder has results; 0 where there is none that can be read."""
    rows = _peek(out, "SELECT name, size, changed FROM images WHERE error = ''")
    done = {name: stamp for name, *stamp in rows}
    return sum(done.get(_key(image.relative)) == [*(stamp_of(image.path) or ())] for image in images)


def _peek(out: Path, query: str) -> list[tuple[Any, ...]]:
    """What the manifest in a folder answers; nothing where there is none that can be read."""
    path = out / NAME
    try:
        if not path.is_file():
            return []
        with closing(sqlite3.connect(path)) as base:
            return base.execute(query).fetchall()
    except (sqlite3.Error, OSError):
        return []


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ, each as ``a.b: 1 is now 2``."""
    return sorted(_changes(dict(earlier), json.loads(json.dumps(now, default=str))))


def _lock_of(folder: Path) -> sqlite3.Connection:
    """A database that only one process may write to: the system lets go of it when a process dies."""
    try:
        lock = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise OutputError(
                f"{folder}: another batch works on this folder; wait for it or choose another --out"
            ) from error
        raise OutputError(f"{folder}: cannot be written to ({error}); choose another --out") from error
    except sqlite3.DatabaseError as error:
        raise OutputError(
            f"{folder / LOCK}: is damaged ({error}); delete it, then run the same command again"
        ) from error
    return lock


def _key(name: Path) -> bytes:
    # A name on disk may hold bytes that are no text.
    return os.fsencode(name.as_posix())


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _changes(earlier: Any, now: Any, where: str = "") -> Iterator[str]:
    """Settings that differ, each as ``a.b: 1 is now 2``."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        for key in {*earlier, *now}:
            yield from _changes(earlier.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif earlier != now:
        yield f"{where}: {_short(earlier)} is now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
