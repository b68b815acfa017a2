"""Which images show one photograph, and on which side of the split a photograph lies."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from leukokit._files import read_regular_file
from leukokit.errors import DataError, ImageError
from leukokit.smear import read_header

MOST_PIXELS: Final = 10**11
"""No pixel is decoded for a size, so that no image is too large."""
SIDES: Final = {"train": 0, "val": 1, "test": 2}
"""Splits, the more protected the higher: the highest of a photograph's copies is that of all."""
NOT_PREPARED: Final = ("exclude", "unlabelled")
"""What an index calls files that are no part of any split."""
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
        DataError: missing, not CSV, without a column, without a file's name or with an unknown split;
            names the line.
    """
    return [row | {"photo": row["photo"] or Path(row["file"]).stem} for row in _rows(path, INDEX_COLUMNS, {})]


def read_own_index(path: Path, dataset: str, lab: str, split: str) -> list[dict[str, str]]:
    """Rows of the index of one set, as `read_index` gives them; of its columns only ``file`` is needed.

    Without a column ``photo`` every file is a separate photograph. An empty ``photo`` says that
    the photograph is not known: such files may be copies of each other, so all those of one class
    (the label, or else the folder's name) count as one photograph.

    Args:
        path: the CSV.
        dataset: the set's name.
        lab: laboratory of the rows that name none.
        split: split of the rows that name none.

    Raises:
        DataError: as `read_index`.
    """
    rows = _rows(path, ("file",), {"dataset": dataset, "lab": lab, "split": split})
    for row in rows:
        kind = row["label"] or Path(row["file"]).parent.name
        # The set's name keeps these apart from the photographs, and the numbered files, of other sets.
        unnamed = f"unknown {kind} of {dataset}" if "photo" in row else f"{dataset}/{row['file']}"
        row["photo"] = row.get("photo") or unnamed
    return rows


def _rows(path: Path, needed: Sequence[str], defaults: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows of a CSV: `INDEX_COLUMNS`, an empty one by its default; ``photo`` only if the CSV has it."""
    rows = []
    try:
        with io.StringIO(read_regular_file(path).decode("utf-8-sig"), newline="") as stream:
            reader = csv.DictReader(stream)
            named = reader.fieldnames or ()
            missing = [column for column in needed if column not in named]
            if missing:
                raise DataError(f"{path}: the index has no column '{missing[0]}'")
            columns = [column for column in INDEX_COLUMNS if column != "photo" or column in named]
            for row in reader:
                values = {column: row.get(column) or defaults.get(column, "") for column in columns}
                if not values["file"] or "\0" in values["file"]:
                    raise DataError(f"{path}, line {reader.line_num}: no file is named")
                if values["split"] not in (*SIDES, *NOT_PREPARED):
                    raise DataError(
                        f"{path}, line {reader.line_num}: split {values['split']!r} is none of "
                        f"{', '.join((*SIDES, *NOT_PREPARED))}"
                    )
                rows.append(values)
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the index ({error.strerror}); --root names the folder of the data sets"
        ) from error
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error
    return rows


def validation_of(photos: Iterable[str], val: float, seed: int) -> set[str]:
    """The share ``val`` of the photographs, rounded, that validates: those whose hashes are lowest.

    A photograph more or less moves one other at most. The seed salts the hash: ``fields.is_held_back``
    hashes the bare name, and training would find nothing to hold back among photographs that were chosen
    by the same number.
    """
    ordered = sorted(set(photos), key=lambda photo: hashlib.sha256(f"split {seed} {photo}".encode()).digest())
    return set(ordered[: round(val * len(ordered))])


def likely_copies(photos: Iterable[str]) -> dict[str, str]:
    """Names that begin with another's and a separator, as ``x_rot`` with ``x``: by name, that other."""
    names = set(photos)
    starts = {name: [name[: found.start()] for found in re.finditer(r"[-_. ]", name)] for name in names}
    return {name: next(s for s in own if s in names) for name, own in starts.items() if names & set(own)}


def image_size(image: Path) -> tuple[int, int]:
    """Return (width, height) of an image as ``leukokit detect`` reads it, its EXIF orientation applied.

    Raises:
        DataError: it cannot be read.
    """
    try:
        header = read_header(image, max_pixels=MOST_PIXELS)
    except ImageError as error:
        raise DataError(str(error)) from error
    return header.width, header.height


def photo_name(image: Path) -> str:
    """Return the name of the photograph that a file shows, from the file's name.

    Roboflow adds ``_jpg.rf.HASH`` to the names of a photograph's augmented copies.
    """
    found = re.fullmatch(r"(.+)[._](?:jpe?g|png|bmp|tiff?|webp)\.rf\.[0-9A-Za-z]{8,}", image.stem, re.I)
    return found[1] if found else image.stem


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
