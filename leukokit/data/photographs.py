"""Which images show one photograph, and on which side of the split a photograph lies."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from leukokit.errors import DataError

SIDES: Final = {"train": 0, "val": 1, "test": 2}
"""Splits, the more protected the higher: the highest of a photograph's copies is that of all."""
INDEX_COLUMNS = ("dataset", "file", "lab", "photo", "slide", "label", "split")


class Photographs:
    """Which names stand for one photograph: those given to one, and those of files with equal content."""

    def __init__(self) -> None:
        """Start with none."""
        self._first: dict[str, str] = {}
        self._order: dict[str, int] = {}
        self._by_content: dict[str, str] = {}

    def add(self, photo: str, content: str | None) -> None:
        """Add a copy of ``photo``; ``content`` is its file's fingerprint, if it may have an equal."""
        self._first.setdefault(photo, photo)
        self._order.setdefault(photo, len(self._order))
        if content is not None:
            one, other = self[photo], self[self._by_content.setdefault(content, photo)]
            first, second = sorted((one, other), key=self._order.__getitem__)
            self._first[second] = first

    def __getitem__(self, photo: str) -> str:
        """The first name of the photograph."""
        while (first := self._first[photo]) != photo:
            photo = first
        return photo


def read_index(path: Path) -> list[dict[str, str]]:
    """Rows of an index, all of `INDEX_COLUMNS` there; an empty ``photo`` becomes the file's stem.

    Raises:
        DataError: missing, not CSV, without a column, or with an unknown split; names the line.
    """
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in INDEX_COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: the index has no column '{missing[0]}'")
            for row in reader:
                values = {column: row[column] or "" for column in INDEX_COLUMNS}
                if values["split"] not in (*SIDES, "exclude"):
                    raise DataError(
                        f"{path}, line {reader.line_num}: split '{values['split']}' is none of "
                        "train, val, test, exclude"
                    )
                rows.append(values | {"photo": values["photo"] or Path(values["file"]).stem})
    except OSError as error:
        raise DataError(f"{path}: cannot read the index ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error
    return rows


def split_of(photo: str, val: float, seed: int) -> str:
    """``val`` or ``train``, fixed by the photograph's name and the seed.

    The seed salts the hash: ``fields.is_held_back`` hashes the bare name, and training would find
    nothing to hold back among photographs that were chosen by the same number.
    """
    digest = hashlib.sha256(f"split {seed} {photo}".encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") < val * 2**64 else "train"


def fingerprints(images: Iterable[Path]) -> dict[Path, str]:
    """Content hashes of those files that share their size with another; the rest cannot be copies."""
    by_size: dict[int, list[Path]] = {}
    for image in images:
        try:
            by_size.setdefault(image.stat().st_size, []).append(image)
        except OSError:
            continue
    prints = {}
    for image in (image for group in by_size.values() if len(group) > 1 for image in group):
        try:
            with image.open("rb") as stream:
                prints[image] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            continue
    return prints
