"""Corrections as files: ``corrections.csv`` to exchange and apply, ``corrections.jsonl`` as the full log."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from leukokit._files import write_atomically
from leukokit._text import escape_formula, printable, unescape_formula
from leukokit.batch.decisions import NOT_A_LEUKOCYTE, CellKey, DecisionLog
from leukokit.errors import DataError
from leukokit.review.cells import ReviewBatch
from leukokit.taxonomy import UNKNOWN, class_of

CORRECTION_COLUMNS: Final = ("image", "cell", "label", "by")
MAX_LABEL: Final = 60


@dataclass(frozen=True, slots=True)
class Correction:
    """One line of ``corrections.csv``: a cell, what it is, and who says so."""

    key: CellKey
    label: str
    by: str


def read_corrections(path: Path) -> list[Correction]:
    """Read a table with the columns image, cell, label, by; further columns do not matter.

    Raises:
        DataError: unreadable, a column is missing, or a line is wrong; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{printable(path)}: cannot be read as UTF-8 text ({error})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in CORRECTION_COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        needed = ", ".join(CORRECTION_COLUMNS)
        raise DataError(
            f"{printable(path)}: has no column '{missing[0]}'; it needs {needed}, comma-separated"
        )
    return [_correction(path, reader.line_num, row) for row in reader]


def _correction(path: Path, line: int, row: dict[str, str]) -> Correction:
    image, cell, label, by = (unescape_formula((row[column] or "").strip()) for column in CORRECTION_COLUMNS)
    if not (image and cell.isdecimal() and by):
        raise DataError(
            f"{printable(path)}, line {line}: needs an image, a cell number and who reviewed it ('by')"
        )
    return Correction(CellKey(image, int(cell)), label_of(label, f"{printable(path)}, line {line}"), by)


def label_of(text: str, where: str) -> str:
    """Return a label as the counts use it: known names of other tools become leukokit's.

    Raises:
        DataError: empty, longer than 60 characters, or with characters that cannot be printed.
    """
    name = " ".join(text.split())
    if not name or len(name) > MAX_LABEL or not name.isprintable():
        raise DataError(f"{where}: a label has 1 to {MAX_LABEL} printable characters")
    if name.lower() in (NOT_A_LEUKOCYTE, UNKNOWN):
        return name.lower()
    return class_of(name) or name


def apply_corrections(batch: ReviewBatch, log: DecisionLog, corrections: Sequence[Correction]) -> int:
    """Store corrections as decisions, all or none of a label and reviewer.

    Returns:
        How many cells now have another reviewed label than before.

    Raises:
        DataError: a correction is about a cell that the batch does not have.
    """
    machine = {cell.key: cell.label for cell in batch.cells}
    for correction in corrections:
        if correction.key not in machine:
            raise DataError(
                f"image '{printable(correction.key.image)}', cell {correction.key.cell}: no such leukocyte; "
                "take image and id from the batch's cells.csv"
            )
    current = log.current()
    changed = 0
    grouped: dict[tuple[str, str], list[CellKey]] = {}
    for correction in corrections:
        verdict = current.get(correction.key)
        if verdict is None or verdict.label != correction.label:
            grouped.setdefault((correction.label, correction.by), []).append(correction.key)
    for (label, by), keys in grouped.items():
        log.decide([(key, machine[key]) for key in keys], label, by)
        changed += len(keys)
    return changed


def write_corrections(results: Path, log: DecisionLog) -> list[Path]:
    """Write ``corrections.csv`` (decisions in force) and ``corrections.jsonl`` (the whole log).

    Returns:
        The files written.

    Raises:
        OutputError: a file cannot be written.
    """
    table, lines = results / "corrections.csv", results / "corrections.jsonl"
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([*CORRECTION_COLUMNS, "at"])
    for key, verdict in sorted(log.current().items()):
        writer.writerow(
            [
                *(escape_formula(key.image), key.cell),
                *(escape_formula(verdict.label), escape_formula(verdict.reviewer), verdict.at),
            ]
        )
    write_atomically(table, stream.getvalue())
    write_atomically(lines, "".join(_json_lines(log)))
    return [table, lines]


def _json_lines(log: DecisionLog) -> Iterator[str]:
    for decision in log.history():
        document = asdict(decision)
        image, cell = document.pop("key")
        yield json.dumps({**document, "image": image, "cell": cell}, ensure_ascii=False) + "\n"
