"""Parsers of the three kinds of annotation files: YOLO, Pascal VOC and COCO.

Boxes come as xyxy pixels, under the names that the set itself uses. What is wrong with one object costs that
object and is a fault of its image; a file that is something else altogether is a ``DataError``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree

from leukokit._text import one_line
from leukokit.errors import DataError

MAX_COORDINATE: Final = 1e9
"""No coordinate of an image is larger."""
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_ROTATED: Final = ("cx", "cy", "w", "h", "angle")


@dataclass(frozen=True, slots=True)
class NamedBox:
    """A box as the set gives it: its class's name and (x1, y1, x2, y2) pixels, unchecked."""

    name: str
    box: tuple[float, float, float, float]


@dataclass(slots=True)
class Annotation:
    """What is annotated in an image.

    Attributes:
        boxes: in the order of the file.
        size: (width, height) in pixels of the image that was annotated, where the file says so.
        faults: one line for each object without a usable box.
        changed: one line for each box that is not as the file gives it.
    """

    boxes: list[NamedBox] = field(default_factory=list)
    size: tuple[int, int] | None = None
    faults: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def parse_yolo(content: bytes, names: Mapping[int, str], size: tuple[int, int], where: str) -> Annotation:
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
    annotation = Annotation()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a YOLO label file (not text)") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            kind, shares = _whole_number(float(words[0])), [_finite(word) for word in words[1:]]
        except ValueError as error:
            raise DataError(f"{where}, line {number}: not a YOLO label ({error})") from error
        if len(shares) == 4:
            x, y, w, h = shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif len(shares) >= 6 and len(shares) % 2 == 0:
            x1, y1, x2, y2 = _box_around(shares)
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
        else:
            raise DataError(
                f"{where}, line {number}: not a YOLO label ({len(words)} numbers; 'class x y w h' has 5)"
            )
        annotation.boxes.append(NamedBox(names.get(kind, str(kind)), box))
    return annotation


def parse_voc(content: bytes, where: str) -> Annotation:
    """Parse a Pascal VOC annotation; a rotated box becomes the upright one around it.

    Raises:
        DataError: not XML, or not VOC.
    """
    root = _parse_xml(content, where)
    if root.tag != "annotation":
        raise DataError(f"{where}: not a VOC annotation (its root is '{one_line(root.tag)[:40]}')")
    annotation = Annotation(size=_voc_size(root))
    for number, item in enumerate(root.iter("object"), 1):
        name = (item.findtext("name") or "").strip()
        subject = f"object {number}, {name or 'no name'}"
        try:
            if item.find("robndbox") is not None and item.find("bndbox") is None:
                cx, cy, w, h, angle = (_finite(item.findtext(f"robndbox/{part}")) for part in _ROTATED)
                box = _around_rotated(cx, cy, w, h, angle)
                annotation.changed.append(f"{subject}: rotated box")
            else:
                x1, y1, x2, y2 = (_finite(item.findtext(f"bndbox/{corner}")) for corner in _CORNERS)
                box = x1, y1, x2, y2
        except ValueError as error:
            annotation.faults.append(f"{subject}: no corners ({error})")
            continue
        if name:
            annotation.boxes.append(NamedBox(name, box))
        else:
            annotation.faults.append(subject)
    return annotation


def parse_coco(content: bytes, where: str) -> tuple[dict[str, Annotation], list[str]]:
    """Parse a COCO file into the annotation of every file name, and the faults that belong to no image.

    Crowd regions, which are no cells, are left out. Without ``bbox`` the box around the polygon is taken.

    Raises:
        DataError: not JSON, or without a list of images and one of annotations.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a COCO file ({one_line(error)})") from error
    try:
        categories = {row["id"]: str(row["name"]) for row in document.get("categories", [])}
        files = {row["id"]: row["file_name"] for row in document["images"]}
        if not all(isinstance(name, str) and name and "\0" not in name for name in files.values()):
            raise ValueError("an image's file_name is not text")
        annotations = {row["file_name"]: Annotation(size=_coco_size(row)) for row in document["images"]}
        rows = list(document["annotations"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: not a COCO file ({type(error).__name__}: {one_line(error)})") from error
    faults = []
    for row in rows:
        try:
            if row.get("iscrowd"):
                continue
            name = files.get(row["image_id"])
            if name is None:
                faults.append(f"annotation {row.get('id')}: of image {row['image_id']}, which is not listed")
                continue
            kind = row["category_id"]
            annotations[name].boxes.append(NamedBox(categories.get(kind, str(kind)), _coco_box(row)))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
            fault = f"annotation without a usable box ({type(error).__name__}: {one_line(error)[:60]})"
            known = isinstance(row, dict) and isinstance(row.get("image_id"), int | str)
            name = files.get(row["image_id"]) if known else None
            (faults if name is None else annotations[name].faults).append(fault)
    return annotations, [one_line(fault) for fault in faults]


def _parse_xml(content: bytes, where: str) -> ElementTree.Element:
    # Written as UTF-16, a declaration is not found among the bytes.
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = content.decode(encoding, errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text or "\0" in text:
        raise DataError(
            f"{where}: not a VOC annotation (it declares a document type, which may hide entities)"
        )
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a VOC annotation ({one_line(error)})") from error


def _voc_size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (
            _whole_number(_finite(root.findtext(f"size/{side}"))) for side in ("width", "height")
        )
    except ValueError:
        return None
    return (width, height) if width and height else None


def _coco_size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = row.get("width"), row.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _coco_box(row: Mapping[str, Any]) -> tuple[float, float, float, float]:
    if row.get("bbox"):
        x, y, w, h = (_finite(value) for value in row["bbox"])
        return x, y, x + w, y + h
    points = [_finite(value) for polygon in row["segmentation"] for value in polygon]
    if len(points) < 6:
        raise ValueError("neither bbox nor polygon")
    return _box_around(points)


def _box_around(points: Sequence[float]) -> tuple[float, float, float, float]:
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _around_rotated(
    cx: float, cy: float, w: float, h: float, angle: float
) -> tuple[float, float, float, float]:
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    half_width, half_height = (w * cosine + h * sine) / 2, (w * sine + h * cosine) / 2
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def _finite(value: Any) -> float:
    if value is None:
        raise ValueError("missing")
    if isinstance(value, str):
        # Some annotation tools write the decimal comma of the user's language.
        value = value.strip().replace(",", ".")
        if not re.fullmatch(r"[-+0-9.eE]+", value, re.ASCII):
            raise ValueError(f"'{one_line(value)[:40]}' is not a number")
    number = float(value)
    # The bound keeps every later product finite.
    if not math.isfinite(number) or abs(number) > MAX_COORDINATE:
        raise ValueError(f"{number} is not a length")
    return number


def _whole_number(number: float) -> int:
    if not number.is_integer() or number < 0:
        raise ValueError(f"{number} is not a whole number")
    return int(number)
