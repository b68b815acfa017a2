"""Readers of the four forms in which cells are annotated: YOLO, Pascal VOC, COCO and class folders.

A reader lists the images of a folder in a fixed order and gives the boxes of one of them, as
xyxy pixels, under the names that the set itself uses; what these mean is decided elsewhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

from leukokit.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
IMAGE_FOLDERS = frozenset({"images", "jpegimages"})
"""Names of folders of images, in lower case, beside which a folder of labels is looked for."""
LARGEST = 1e9
"""No coordinate of an image is larger."""


@dataclass(frozen=True, slots=True)
class NamedBox:
    """A box as the set gives it: its class's name and (x1, y1, x2, y2) pixels, unchecked."""

    name: str
    box: tuple[float, float, float, float]


class AnnotationReader(Protocol):
    """What one format offers."""

    def images(self) -> Iterator[Path]:
        """The images of the set, in an order that depends on their names alone."""
        ...

    def boxes(self, image: Path, size: tuple[int, int]) -> list[NamedBox] | None:
        """Boxes of an image of the given (width, height); ``None`` where it has no label file.

        Raises:
            DataError: the label file cannot be read.
        """
        ...


class YoloReader:
    """YOLO: a text file an image, in ``labels`` beside ``images`` or beside the image.

    Args:
        folder: the set.
        names: class names by number that go before those of its ``data.yaml`` or ``classes.txt``.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]):
        """Look for the set's class names."""
        self.folder = folder
        self.names = {**_yolo_names(folder), **names}

    def images(self) -> Iterator[Path]:
        """Every image below the folder."""
        return _images_below(self.folder)

    def boxes(self, image: Path, size: tuple[int, int]) -> list[NamedBox] | None:
        """Boxes of the image's ``.txt``; polygons become the boxes around them."""
        label = _label_file(self.folder, image, ".txt", ("labels",))
        return None if label is None else parse_yolo(_read_bytes(label), self.names, size, str(label))


@dataclass(frozen=True, slots=True)
class VocReader:
    """Pascal VOC: an XML file an image, in ``Annotations`` beside ``JPEGImages`` or beside the image."""

    folder: Path

    def images(self) -> Iterator[Path]:
        """Every image below the folder."""
        return _images_below(self.folder)

    def boxes(self, image: Path, size: tuple[int, int]) -> list[NamedBox] | None:
        """Boxes of the image's ``.xml``."""
        label = _label_file(self.folder, image, ".xml", ("Annotations", "annotations", "labels"))
        return None if label is None else parse_voc(_read_bytes(label), str(label))


class CocoReader:
    """COCO: every ``.json`` below the folder that lists images and annotations; each is read as a whole."""

    def __init__(self, folder: Path):
        """Read every COCO file below ``folder``; a `DataError` if there is none or one is damaged."""
        self.folder = folder
        self._boxes: dict[Path, list[NamedBox]] = {}
        found = False
        for path in sorted(folder.rglob("*.json")):
            content = _read_bytes(path)
            if b'"images"' in content and b'"annotations"' in content:
                found = True
                for name, boxes in parse_coco(content, str(path)).items():
                    self._boxes[self._place(path, name)] = boxes
        if not found:
            raise DataError(
                f"{folder}: no COCO file below it; a .json with 'images' and 'annotations' is needed"
            )

    def images(self) -> Iterator[Path]:
        """Every image that the COCO files list, there or not."""
        return iter(sorted(self._boxes, key=lambda path: path.as_posix()))

    def boxes(self, image: Path, size: tuple[int, int]) -> list[NamedBox] | None:
        """Boxes of one listed image."""
        return self._boxes.get(image)

    def _place(self, source: Path, name: str) -> Path:
        """Where a listed image lies: the layouts of COCO itself and of the usual exporters."""
        folder, split = source.parent, source.stem.removeprefix("instances_")
        places = [folder, self.folder, folder / "images", self.folder / "images", folder.parent / "images"]
        places += [folder / split, folder.parent / split, folder.parent / "images" / split]
        return next((place / name for place in places if (place / name).is_file()), self.folder / name)


@dataclass(frozen=True, slots=True)
class ClassFolderReader:
    """Class folders: a picture of one cell each, the class being the name of its folder."""

    folder: Path

    def images(self) -> Iterator[Path]:
        """Every image below the folder."""
        return _images_below(self.folder)

    def boxes(self, image: Path, size: tuple[int, int]) -> list[NamedBox] | None:
        """One box, the whole picture."""
        return [NamedBox(image.parent.name, (0.0, 0.0, float(size[0]), float(size[1])))]


def parse_yolo(content: bytes, names: Mapping[int, str], size: tuple[int, int], where: str) -> list[NamedBox]:
    """Parse a YOLO label file: ``class x y w h``, or ``class x1 y1 x2 y2 x3 y3 ...``, in shares of ``size``.

    Args:
        content: the file.
        names: class names by number; a number without one is its own name.
        size: (width, height) of the image.
        where: the file's name, for errors.

    Raises:
        DataError: a line is neither; names it.
    """
    width, height = size
    boxes = []
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a YOLO label file (not text)") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            kind, shares = _whole(float(words[0])), [_finite(word) for word in words[1:]]
        except ValueError as error:
            raise DataError(f"{where}, line {number}: not a YOLO label ({error})") from error
        if len(shares) == 4:
            x, y, w, h = shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif len(shares) >= 6 and len(shares) % 2 == 0:
            xs, ys = shares[::2], shares[1::2]
            box = (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
        else:
            raise DataError(
                f"{where}, line {number}: not a YOLO label ({len(words)} numbers; 'class x y w h' has 5)"
            )
        boxes.append(NamedBox(names.get(kind, str(kind)), box))
    return boxes


def parse_voc(content: bytes, where: str) -> list[NamedBox]:
    """Parse a Pascal VOC annotation; coordinates are taken as they stand.

    Raises:
        DataError: not XML, not VOC, or an object without name or corners.
    """
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(
            f"{where}: not a VOC annotation (it declares a document type, which may hide entities)"
        )
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{where}: not a VOC annotation ({error})") from error
    if root.tag != "annotation":
        raise DataError(f"{where}: not a VOC annotation (its root is '{root.tag}')")
    boxes = []
    for number, item in enumerate(root.iter("object"), 1):
        name = (item.findtext("name") or "").strip()
        corners = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x1, y1, x2, y2 = (_finite(corner or "nothing") for corner in corners)
        except ValueError as error:
            raise DataError(f"{where}, object {number}: no corners ({error})") from error
        if not name:
            raise DataError(f"{where}, object {number}: no name")
        boxes.append(NamedBox(name, (x1, y1, x2, y2)))
    return boxes


def parse_coco(content: bytes, where: str) -> dict[str, list[NamedBox]]:
    """Parse a COCO file into the boxes of every file name; crowd regions, which are no cells, are left out.

    Raises:
        DataError: not JSON, or images, categories and annotations do not fit together.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a COCO file ({error})") from error
    try:
        categories = {row["id"]: str(row["name"]) for row in document.get("categories", [])}
        files = {row["id"]: row["file_name"] for row in document["images"]}
        if not all(isinstance(name, str) and name and "\0" not in name for name in files.values()):
            raise ValueError("an image's file_name is not text")
        boxes: dict[str, list[NamedBox]] = {name: [] for name in files.values()}
        for row in document["annotations"]:
            if row.get("iscrowd"):
                continue
            x, y, w, h = (_finite(value) for value in row["bbox"])
            kind = row["category_id"]
            boxes[files[row["image_id"]]].append(
                NamedBox(categories.get(kind, str(kind)), (x, y, x + w, y + h))
            )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{where}: not a COCO file ({type(error).__name__}: {error})") from error
    return boxes


def _yolo_names(folder: Path) -> dict[int, str]:
    """Class names of ``data.yaml``, or else of ``classes.txt``; none if the set has neither."""
    import yaml

    for path in sorted(folder.rglob("data.yaml")):
        try:
            content: Any = yaml.safe_load(_read_bytes(path))
            names = content["names"]
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            return {int(number): str(name) for number, name in pairs}
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: no class names in it ({type(error).__name__}); 'names: [...]' is needed"
            ) from error
    for path in sorted(folder.rglob("classes.txt")):
        text = _read_bytes(path).decode("utf-8-sig", errors="replace")
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    return {}


def _images_below(folder: Path) -> Iterator[Path]:
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return iter(sorted(paths, key=lambda path: path.relative_to(folder).as_posix()))


def _label_file(folder: Path, image: Path, suffix: str, beside: tuple[str, ...]) -> Path | None:
    """The label file of an image: in a folder that mirrors its folder of images, or beside it."""
    parts = list(image.relative_to(folder).with_suffix(suffix).parts)
    candidates = [
        folder.joinpath(*parts[:at], name, *parts[at + 1 :])
        for at in reversed(range(len(parts) - 1))
        if parts[at].lower() in IMAGE_FOLDERS
        for name in beside
    ]
    candidates.append(image.with_suffix(suffix))
    return next((path for path in candidates if path.is_file()), None)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _finite(value: Any) -> float:
    if isinstance(value, str) and not re.fullmatch(r"\s*[-+0-9.eE]+\s*", value):
        raise ValueError(f"'{value[:40]}' is not a number")
    number = float(value)
    # The bound keeps every later product finite.
    if not math.isfinite(number) or abs(number) > LARGEST:
        raise ValueError(f"{number} is not a length")
    return number


def _whole(number: float) -> int:
    if not number.is_integer() or number < 0:
        raise ValueError(f"{number} is not a class")
    return int(number)
