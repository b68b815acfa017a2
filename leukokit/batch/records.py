"""What a batch keeps of an image, between the pipeline that makes it and the manifest that stores it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukokit.images.inputs import FoundImage
from leukokit.results import SmearResult

Stamp = tuple[int, int] | None
"""Size in bytes and time of change in ns by which a file is recognised; None for one that does not exist."""


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file as it is now."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A leukocyte for the report's gallery; ``jpeg`` is its crop, ``cell`` its number in the image."""

    name: Path
    cell: int
    label: str
    probability: float
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that a writer saved of an image: its path below the output folder, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Record:
    """An image that is through: what the manifest keeps of it, packed, or why there is nothing.

    Attributes:
        image: the image.
        stamp: its file's before it was read: one that is written again since then has another.
        error: why it has no results; empty where it has.
        packed: its document and its cells, as ``pack`` makes them.
        thumbnails: of its leukocytes.
        files: what writers saved of it.
        result: the result itself, where a worker process was asked for it.
    """

    image: FoundImage
    stamp: Stamp = None
    error: str = ""
    packed: bytes | None = None
    thumbnails: Sequence[Thumbnail] = ()
    files: Sequence[SavedFile] = ()
    result: SmearResult | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of an image: what tables and report show of it, or why there is nothing.

    ``document`` is its JSON (``SmearResult.to_json``) without cells, graph, light and provenance; ``cells``
    are its rows of the table of cells. An image that waits has neither document nor error.
    """

    name: Path
    document: dict[str, Any] | None
    error: str = ""
    cells: str = ""


def pack(document: Mapping[str, Any], cells: str) -> bytes:
    """Return an image's document and its rows of the table of cells as the manifest stores them."""
    # A name on disk may hold bytes that are no text.
    text = f"{json.dumps(document, allow_nan=False)}\n{cells}".encode("utf-8", "surrogatepass")
    return zlib.compress(text, 3)


def unpack(packed: bytes) -> tuple[dict[str, Any], str]:
    """Return the document and the cells that ``pack`` was given."""
    document, _, cells = zlib.decompress(packed).decode("utf-8", "surrogatepass").partition("\n")
    return json.loads(document), cells
