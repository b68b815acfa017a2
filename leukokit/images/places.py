"""An image file that was found, and the relative path that its results are named after.

Results mirror the images' places: an image's results are written under ``stem_path``, its path below the
root it was found under, without the suffix. No two images found together share a ``stem_path``:

- images found under several roots (``a/x.png b/y.png``) are placed relative to the nearest common folder of
  these: ``a/x`` and ``b/y``; where the roots lie on several drives, below a folder per drive;
- images of one folder with one stem (``x.png x.jpg``) keep their suffixes: ``x.png`` and ``x.jpg``; so do
  images named like a file about all images (``OWN_STEMS``);
- names that differ only in case or Unicode form (``A.jpg a.jpg``) get a short hash, because they are one
  name on other file systems;
- folders named like a file of results (``run.json/``, ``a.json/``) get an underscore, to leave it the name;
- names too long to be lengthened by the suffixes of results are shortened, with a hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final, TypeVar

OWN_STEMS: Final = frozenset(
    {"cells", "classes", "coco", "counts", "differential", "failures", "report", "run"}
)
"""Stems of files about all images: an image of that name keeps its suffix, never ``run.json``."""

RESULT_SUFFIXES: Final = (
    *(".csv", ".geojson", ".graphml", ".html", ".json", ".lock"),
    *(".parquet", ".png", ".sqlite", ".txt"),
)
"""How files of results end, and no folder of them may."""

LONGEST_NAME: Final = 180
"""Bytes of a file's or folder's name, as UTF-8, above which results use a shorter one.

File systems allow 255; results add a suffix, and while they are written a temporary one.
"""

_AnyPath = TypeVar("_AnyPath", bound=PurePath)


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image file and where it was found.

    Attributes:
        path: the file, as the user's argument leads to it.
        root: the folder that its results are placed relative to.
        keeps_suffix: whether another image would share its ``stem_path`` otherwise.
        drive: folder that stands for the image's drive, where images lie on several; else empty.
        tag: short hash that tells it from an image whose name differs in case or Unicode form; else empty.
    """

    path: Path
    root: Path
    keeps_suffix: bool = False
    drive: str = ""
    tag: str = ""

    @property
    def relative(self) -> Path:
        """``path`` relative to ``root``, below its ``drive`` if it has one."""
        return self.drive / absolute(self.path).relative_to(absolute(self.root))

    @property
    def stem_path(self) -> Path:
        """Relative path that results are named after: append ``.json`` to it, never replace a suffix."""
        relative = self.relative
        name = relative.name if self.keeps_suffix else relative.stem
        parts = (*map(_folder_name, relative.parent.parts), f"{name}-{self.tag}" if self.tag else name)
        return Path(*map(_shortened, parts))


def place(images: Iterable[FoundImage]) -> list[FoundImage]:
    """Give each image its own ``stem_path``."""
    return _tagged_images(_with_suffixes(_with_common_root(list(images))))


def absolute(path: Path) -> Path:
    """Return an absolute path without ``..``; a link is followed only where ``..`` comes after it."""
    if ".." in path.parts:
        return Path(os.path.realpath(path.parent)) / path.name
    # Not Path.resolve, which would replace the folder of a linked image by its target's.
    return Path(os.path.abspath(path))  # noqa: PTH100


def common_folders(roots: Iterable[_AnyPath]) -> dict[_AnyPath, tuple[_AnyPath, str]]:
    """Return for each absolute root the folder common to all of its drive, and a name for the drive.

    The name is empty where all roots lie on one drive, as they always do outside Windows.

    Examples:
        >>> from pathlib import PureWindowsPath as Windows
        >>> found = common_folders([Windows("C:/a/b"), Windows("C:/a/c"), Windows("D:/x")])
        >>> [(common.as_posix(), drive) for common, drive in found.values()]
        [('C:/a', 'c'), ('C:/a', 'c'), ('D:/x', 'd')]
    """
    roots = list(roots)
    drives = dict.fromkeys(root.drive.casefold() for root in roots)
    folders: dict[_AnyPath, tuple[_AnyPath, str]] = {}
    for root in roots:
        together = [other for other in roots if other.drive.casefold() == root.drive.casefold()]
        common = next(
            folder
            for folder in (root, *root.parents)
            if all(other.is_relative_to(folder) for other in together)
        )
        name = re.sub(r"\W+", "_", root.drive.casefold()).strip("_") if len(drives) > 1 else ""
        folders[root] = common, name
    return folders


def _with_common_root(images: list[FoundImage]) -> list[FoundImage]:
    roots = dict.fromkeys(absolute(image.root) for image in images)
    if len(roots) < 2:
        return images
    # Also where no names are equal: the names of results must not depend on what else is in the folders.
    folders = common_folders(roots)
    placed = []
    for image in images:
        common, drive = folders[absolute(image.root)]
        placed.append(replace(image, root=common, drive=drive))
    return placed


def _with_suffixes(images: list[FoundImage]) -> list[FoundImage]:
    images = [replace(i, keeps_suffix=True) if _folded(i.stem_path) in OWN_STEMS else i for i in images]
    while True:
        stems = Counter(_folded(image.stem_path) for image in images)
        # x.png and x.jpg keep theirs, and so then does x.png.jpg, whose stem is x.png.
        kept = [
            image if stems[_folded(image.stem_path)] == 1 else replace(image, keeps_suffix=True)
            for image in images
        ]
        if kept == images:
            return images
        images = kept


def _tagged_images(images: list[FoundImage]) -> list[FoundImage]:
    stems = Counter(_folded(image.stem_path) for image in images)
    return [
        image
        if stems[_folded(image.stem_path)] == 1
        else replace(image, tag=_hash(image.relative.as_posix())[:6])
        for image in images
    ]


def _folder_name(name: str) -> str:
    return f"{name}_" if name.casefold().endswith(RESULT_SUFFIXES) else name


def _shortened(name: str) -> str:
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    # Cut between characters: half of one would be another name on disk.
    kept = encoded[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}-{_hash(name)[:8]}"


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.as_posix()).casefold())
