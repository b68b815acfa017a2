"""Readers of the four forms in which cells are annotated: YOLO, Pascal VOC, COCO and class folders.

A reader lists the images of a folder in a fixed order and gives the boxes of one of them, under the names
that the set itself uses; what these mean is decided elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from leukokit._files import read_regular_file
from leukokit._yaml import read_yaml
from leukokit.datasets.annotations import Annotation, NamedBox, parse_coco, parse_voc, parse_yolo
from leukokit.errors import ConfigError, DataError
from leukokit.images.inputs import SYSTEM_FOLDERS, find_images

IMAGE_FOLDERS: Final = frozenset({"images", "jpegimages"})
"""Names of folders of images, in lower case, beside which a folder of annotations may lie."""
YAML_SUFFIXES: Final = (".yaml", ".yml")


class AnnotationReader(Protocol):
    """What one format offers.

    Attributes:
        faults: what is wrong with annotations that belong to no image.
    """

    faults: list[str]

    def images(self) -> list[Path]:
        """The images of the set, in an order that depends on their names alone."""
        ...

    def read(self, image: Path, size: tuple[int, int]) -> Annotation | None:
        """The annotation of an image of the given (width, height); ``None`` where it has no label file.

        Raises:
            DataError: the label file cannot be read.
        """
        ...


class FileIndex:
    """The files below a folder, found by relative path whatever the case of its letters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = sorted(_files_below(folder), key=Path.as_posix)
        self._by_name: dict[str, Path] = {}
        self._by_folded: dict[str, Path] = {}
        for path in self.files:
            name = path.relative_to(folder).as_posix()
            self._by_name[name] = path
            self._by_folded.setdefault(name.casefold(), path)

    def find(self, name: PurePosixPath) -> Path | None:
        """Return the file of a relative path: the one of the same case, else of another; None if none."""
        found = self._by_name.get(name.as_posix()) or self._by_folded.get(name.as_posix().casefold())
        return found if found is not None and found.is_file() else None

    def label_of(self, image: Path, suffix: str, beside: tuple[str, ...]) -> Path | None:
        """Return the label file of an image, in a folder that mirrors its folder of images, or beside it."""
        parts = PurePosixPath(image.relative_to(self.folder).as_posix()).with_suffix(suffix).parts
        candidates = [
            PurePosixPath(*parts[:at], name, *parts[at + 1 :])
            for at in reversed(range(len(parts) - 1))
            if parts[at].casefold() in IMAGE_FOLDERS
            for name in beside
        ]
        found = (self.find(path) for path in (*candidates, PurePosixPath(*parts)))
        return next((path for path in found if path is not None), None)


class YoloReader:
    """YOLO: a text file per image, in ``labels`` beside ``images`` or beside the image.

    Args:
        folder: the set.
        names: class names by number that go before those of its files, see ``class_names``.

    Raises:
        DataError: a file of class names cannot be read.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._index = FileIndex(folder)
        self.names = {**class_names(self._index), **names}
        self.faults: list[str] = []

    def images(self) -> list[Path]:
        """Every image below the folder."""
        return images_below(self._index.folder)

    def read(self, image: Path, size: tuple[int, int]) -> Annotation | None:
        """The image's ``.txt``; polygons become the boxes around them."""
        label = self._index.label_of(image, ".txt", ("labels",))
        return None if label is None else parse_yolo(read_file(label), self.names, size, str(label))


class VocReader:
    """Pascal VOC: an XML file per image, in ``Annotations`` beside ``JPEGImages`` or beside the image."""

    def __init__(self, folder: Path) -> None:
        self._index = FileIndex(folder)
        self.faults: list[str] = []

    def images(self) -> list[Path]:
        """Every image below the folder."""
        return images_below(self._index.folder)

    def read(self, image: Path, size: tuple[int, int]) -> Annotation | None:
        """The image's ``.xml``."""
        label = self._index.label_of(image, ".xml", ("annotations", "labels"))
        return None if label is None else parse_voc(read_file(label), str(label))


class CocoReader:
    """COCO: every ``.json`` below the folder that lists images and annotations; each is read as a whole.

    What several files say of one image is joined.

    Raises:
        DataError: there is no such file, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self._annotations: dict[Path, Annotation] = {}
        found = False
        for path in FileIndex(folder).files:
            if path.suffix.casefold() != ".json" or not path.is_file():
                continue
            content = read_file(path)
            if b'"images"' in content and b'"annotations"' in content:
                found = True
                annotations, faults = parse_coco(content, str(path))
                self.faults += [f"{path.name}: {fault}" for fault in faults]
                for name, annotation in annotations.items():
                    self._join(self._place(path, name), annotation)
        if not found:
            raise DataError(
                f"{folder}: no COCO file below it; a .json with 'images' and 'annotations' is needed"
            )

    def images(self) -> list[Path]:
        """Every image that the COCO files list, there or not."""
        return sorted(self._annotations, key=Path.as_posix)

    def read(self, image: Path, size: tuple[int, int]) -> Annotation | None:
        """The annotation of one listed image."""
        return self._annotations.get(image)

    def _join(self, image: Path, annotation: Annotation) -> None:
        known = self._annotations.setdefault(image, Annotation(size=annotation.size))
        if None not in (known.size, annotation.size) and known.size != annotation.size:
            raise DataError(
                f"{self.folder}: {image.name} is {known.size} in one COCO file and {annotation.size} in "
                "another; keep one of the two"
            )
        known.size = known.size or annotation.size
        known.boxes += annotation.boxes
        known.faults += annotation.faults
        known.changed += annotation.changed

    def _place(self, source: Path, name: str) -> Path:
        """Where a listed image lies: in the layouts of COCO itself, of the usual exporters, and our own."""
        folder, split = source.parent, source.stem.removeprefix("instances_")
        places = [folder, self.folder, folder / "images", self.folder / "images", folder.parent / "images"]
        places += [folder / split, folder.parent / split, folder.parent / "images" / split]
        # Where the image was named relative to the folder that a command ran in, which holds the results.
        places += [Path(), *folder.resolve().parents]
        # Programs on Windows write its separators.
        spellings = list(dict.fromkeys((name, name.replace("\\", "/"))))
        candidates = [place / spelling for spelling in spellings for place in places]
        last = PurePosixPath(spellings[-1]).name
        candidates += [place / last for place in places[:8]]
        return next((path for path in candidates if path.is_file()), self.folder / spellings[-1])


class ClassFolderReader:
    """Class folders: a picture of one cell each, the class being the name of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def images(self) -> list[Path]:
        """Every image below the folder."""
        return images_below(self.folder)

    def read(self, image: Path, size: tuple[int, int]) -> Annotation:
        """One box, the whole picture."""
        return Annotation([NamedBox(image.parent.name, (0.0, 0.0, float(size[0]), float(size[1])))])


def class_names(index: FileIndex) -> dict[int, str]:
    """Class names of a YOLO set by number, from a YAML file with ``names``, ``classes.txt`` or ``obj.names``.

    A blank line of a text file keeps its number. There are none if the set has no such file.

    Raises:
        DataError: a file cannot be read, or two of one kind differ.
    """
    yaml_files = [path for path in index.files if path.suffix.casefold() in YAML_SUFFIXES]
    found = {path: names for path in yaml_files if (names := _yaml_names(path)) is not None}
    if not found:
        texts = [
            path
            for path in index.files
            if path.name.casefold() == "classes.txt" or path.suffix.casefold() == ".names"
        ]
        found = {path: _text_names(path) for path in texts if path.is_file()}
    first = next(iter(found), None)
    for path, names in found.items():
        if first is not None and names != found[first]:
            raise DataError(f"{first} and {path}: class names differ; keep the one that is meant")
    return found[first] if first is not None else {}


def images_below(folder: Path) -> list[Path]:
    """The images that ``leukokit detect`` would find in a folder, sorted by their paths in it."""
    found = (image.path for image in find_images([folder]).images)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; as ``find_images``, follow links and skip hidden and system folders."""
    entered: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [n for n in folders if not n.startswith(".") and n.casefold() not in SYSTEM_FOLDERS]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return read_regular_file(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _yaml_names(path: Path) -> dict[int, str] | None:
    """Class names of a YAML file; None if it has none and is not called so that it must have some."""
    must = path.stem.casefold() == "data"
    try:
        content: Any = read_yaml(path)
        names = content["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        if not must:
            return None
        cause = f"; {error}" if isinstance(error, ConfigError) else ""
        raise DataError(f"{path}: no class names in it; 'names: [...]' is needed{cause}") from error


def _text_names(path: Path) -> dict[int, str]:
    text = read_file(path).decode("utf-8-sig", errors="replace")
    lines = (line.strip() for line in text.splitlines())
    return {number: name for number, name in enumerate(lines) if name}
