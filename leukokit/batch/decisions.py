"""What people decided about the leukocytes of a batch: an append-only log beside the manifest.

The machine's labels stay as they are in the manifest. A decision is stored with who made it, when, and what
the label was before; a later decision about the same cell replaces an earlier one, and both stay in the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple, Self

from leukokit._text import printable
from leukokit.errors import OutputError

NAME: Final = "review.sqlite"
NOT_A_LEUKOCYTE: Final = "not a leukocyte"
"""Label of a detection that a person says is no leukocyte."""
ARTEFACT: Final = "artefact"
NOT_LEUKOCYTES: Final = frozenset({NOT_A_LEUKOCYTE, ARTEFACT})
"""Labels with which a detection leaves every count."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, at TEXT NOT NULL, reviewer TEXT NOT NULL,
    image TEXT NOT NULL, cell INTEGER NOT NULL, machine TEXT NOT NULL, before TEXT, label TEXT,
    weights TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS decisions_of_cell ON decisions (image, cell, number);
CREATE TRIGGER IF NOT EXISTS decisions_stay BEFORE DELETE ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are never deleted'); END;
CREATE TRIGGER IF NOT EXISTS decisions_are_not_changed BEFORE UPDATE ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are never changed'); END;
"""
_CURRENT: Final = """
SELECT image, cell, label, reviewer, at FROM decisions
WHERE number IN (SELECT max(number) FROM decisions GROUP BY image, cell) AND label IS NOT NULL
"""
_IN_FORCE: Final = """
SELECT step, image, cell, machine, before FROM decisions AS own
WHERE step > 0 AND NOT EXISTS (
    SELECT 1 FROM decisions AS undone
    WHERE undone.image = own.image AND undone.cell = own.cell AND undone.step = -own.step)
AND NOT EXISTS (
    SELECT 1 FROM decisions AS later
    WHERE later.image = own.image AND later.cell = own.cell AND later.number > own.number AND later.step > 0
    AND NOT EXISTS (
        SELECT 1 FROM decisions AS undone
        WHERE undone.image = later.image AND undone.cell = later.cell AND undone.step = -later.step))
"""
"""Decisions that were not undone, and that no later one about the same cell replaces."""


class CellKey(NamedTuple):
    """A cell of a batch: the image's name in the manifest, and the cell's id in that image."""

    image: str
    cell: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision in force about a cell: its label, who gave it, and when (ISO 8601, UTC)."""

    label: str
    reviewer: str
    at: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the log.

    Attributes:
        number: place in the log, from 1.
        step: decisions made at once share it, and are undone at once.
        at: when, ISO 8601, UTC.
        reviewer: who.
        key: which cell.
        machine: the classifier's label.
        before: the reviewed label before; None where there was none.
        label: the reviewed label now; None where a decision was taken back.
        weights: name and hash of the classifier's weights.
    """

    number: int
    step: int
    at: str
    reviewer: str
    key: CellKey
    machine: str
    before: str | None
    label: str | None
    weights: str


class DecisionLog:
    """The decisions about one batch's cells; several threads may use it.

    Args:
        results: the batch's folder. The log is made where there is none.
        weights: name and hash of the classifier's weights, stored with every decision.

    Raises:
        OutputError: it cannot be written to, or is damaged.
    """

    def __init__(self, results: Path, weights: str = "") -> None:
        self._path, self._weights, self._lock = results / NAME, weights, Lock()
        with self._reported():
            self._base = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA journal_mode=WAL")
            # A decision is on the disk before anyone learns that it is stored.
            self._base.execute("PRAGMA synchronous=FULL")
            self._base.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def decide(
        self, cells: Iterable[tuple[CellKey, str]], label: str | None, reviewer: str
    ) -> dict[CellKey, Verdict | None]:
        """Store one label for cells, all or none.

        Args:
            cells: each cell with the classifier's label.
            label: what a person says they are; None takes earlier decisions back.
            reviewer: who.

        Returns:
            The decision now in force about each cell.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._transaction():
            step = self._next_step()
            for key, machine in cells:
                self._append(step, at, reviewer, key, machine, label)
            return {key: self._verdict(key) for key, _ in cells}

    def undo(self, reviewer: str) -> dict[CellKey, Verdict | None]:
        """Take back the reviewer's last step that is still in force; one step more at each call.

        Cells that someone else decided about since then keep that later decision.

        Returns:
            The decision now in force about each cell concerned; empty where nothing is left to undo.
        """
        with self._transaction():
            found = self._base.execute(
                f"{_IN_FORCE} AND reviewer = ? ORDER BY number DESC LIMIT 1", (reviewer,)
            )
            if (last := found.fetchone()) is None:
                return {}
            step = last[0]
            rows = self._base.execute(f"{_IN_FORCE} AND step = ?", (step,)).fetchall()
            at = datetime.now(UTC).isoformat(timespec="seconds")
            keys = [CellKey(image, cell) for _, image, cell, *_ in rows]
            for key, (*_, machine, before) in zip(keys, rows, strict=True):
                # A negative step marks what undoes that step, and is never undone itself.
                self._append(-step, at, reviewer, key, machine, before)
            return {key: self._verdict(key) for key in keys}

    def current(self) -> dict[CellKey, Verdict]:
        """Return the decision in force about every cell that has one."""
        with self._lock, self._reported():
            rows = self._base.execute(_CURRENT).fetchall()
        return {CellKey(image, cell): Verdict(*rest) for image, cell, *rest in rows}

    def history(self) -> list[Decision]:
        """Return the whole log, the oldest decision first."""
        with self._lock, self._reported():
            rows = self._base.execute(
                "SELECT number, step, at, reviewer, image, cell, machine, before, label, weights "
                "FROM decisions ORDER BY number"
            ).fetchall()
        return [
            Decision(number, step, at, reviewer, CellKey(image, cell), machine, before, label, weights)
            for number, step, at, reviewer, image, cell, machine, before, label, weights in rows
        ]

    def _append(
        self, step: int, at: str, reviewer: str, key: CellKey, machine: str, label: str | None
    ) -> None:
        verdict = self._verdict(key)
        before = verdict.label if verdict else None
        self._base.execute(
            "INSERT INTO decisions (step, at, reviewer, image, cell, machine, before, label, weights) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (step, at, reviewer, *key, machine, before, label, self._weights),
        )

    def _verdict(self, key: CellKey) -> Verdict | None:
        row = self._base.execute(
            "SELECT label, reviewer, at FROM decisions WHERE image = ? AND cell = ? "
            "ORDER BY number DESC LIMIT 1",
            key,
        ).fetchone()
        return Verdict(*row) if row and row[0] is not None else None

    def _next_step(self) -> int:
        (step,) = self._base.execute("SELECT coalesce(max(step), 0) + 1 FROM decisions").fetchone()
        return int(step)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._reported():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(
                f"{printable(self._path)}: cannot be used ({error}); free space or check the folder's rights"
            ) from error


def verdicts_of(results: Path) -> dict[CellKey, Verdict]:
    """Return the decisions in force about a batch's cells; empty where nobody reviewed it."""
    path = results / NAME
    if not path.is_file():
        return {}
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            rows: Sequence[tuple[str, int, str, str, str]] = base.execute(_CURRENT).fetchall()
    except sqlite3.Error as error:
        raise OutputError(f"{printable(path)}: cannot be read ({error}); restore it from a copy") from error
    return {CellKey(image, cell): Verdict(*rest) for image, cell, *rest in rows}
