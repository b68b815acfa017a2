"""From an annotated image to the field that training and evaluation read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from leukokit.datasets.annotations import Annotation, NamedBox
from leukokit.datasets.fields import AnnotatedField
from leukokit.datasets.formats import AnnotationReader
from leukokit.datasets.photographs import image_size
from leukokit.datasets.recipe import SetRecipe
from leukokit.datasets.report import PreparationReport, Reason
from leukokit.errors import DataError

ROUNDING_PX: Final = 1.0
"""A box that leaves its image by no more than this is cut without a note: annotators round."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may become a field; ``shown`` names it in the report."""

    image: Path
    shown: str
    lab: str
    photo: str
    slide: str
    split: str
    label: str = ""


def read_candidates(
    candidates: Iterable[tuple[SetRecipe, AnnotationReader, Candidate]],
    contents: Mapping[Path, str],
    report: PreparationReport,
) -> Iterator[AnnotatedField]:
    """Read candidates into fields, leaving out what cannot be read and, without own index, equal files."""
    prepared: set[tuple[str, str]] = set()
    side: dict[str, str] = {}
    for recipe, reader, candidate in candidates:
        content = contents.get(candidate.image)
        if content is not None and recipe.index is None and (recipe.name, content) in prepared:
            report.note(Reason.DUPLICATE_PHOTO, candidate.shown)
            continue
        annotated = _read_one(recipe, reader, candidate, report)
        if annotated is None:
            continue
        if content is not None:
            prepared.add((recipe.name, content))
        assert side.setdefault(candidate.photo, candidate.split) == candidate.split, candidate.photo
        report.fields[recipe.name, candidate.split] += 1
        report.boxes.update(annotated.kinds)
        yield annotated
    counts = ", ".join(f"{len(files)} {reason}" for reason, files in report.left_out.items())
    if not report.fields:
        first = next((files[0] for files in report.left_out.values()), "")
        raise DataError(
            f"no field is left to prepare: {counts or 'there is no image'}"
            + (f"; first: {first}" if first else "")
        )
    if not report.boxes and Reason.UNKNOWN_CLASS in report.left_out:
        first = report.left_out[Reason.UNKNOWN_CLASS][0]
        raise DataError(f"no class of the set is known (first: {first}); map each: --class NAME=KIND[:LABEL]")


def _read_one(
    recipe: SetRecipe, reader: AnnotationReader, candidate: Candidate, report: PreparationReport
) -> AnnotatedField | None:
    annotation, size = _annotation(reader, candidate, report)
    if annotation is None:
        return None
    cells = [cell for box in annotation.boxes if (cell := _cell(box, size, recipe, candidate, report))]
    cells = _without_repeats(cells, candidate, report)
    if not cells and recipe.format == "classes":
        return None
    boxes, kinds, labels = [c[0] for c in cells], [c[1] for c in cells], [c[2] for c in cells]
    leukocytes = [i for i, kind in enumerate(kinds) if kind == "leukocyte"]
    listed = candidate.label.split(";") if candidate.label else []
    # Which of two boxes an unlike label belongs to is known only where the index keeps their order.
    if len(listed) == len(leukocytes) and (recipe.labels_in_box_order or len(set(listed)) == 1):
        for i, label in zip(leukocytes, listed, strict=True):
            labels[i] = recipe.label_of(label)
    return AnnotatedField(
        candidate.image, recipe.name, candidate.lab, candidate.photo, candidate.slide, candidate.split,
        recipe.annotated or (), boxes, kinds, labels,
    )  # fmt: skip


def _annotation(
    reader: AnnotationReader, candidate: Candidate, report: PreparationReport
) -> tuple[Annotation | None, tuple[int, int]]:
    """An image's annotation, and the image's size; None, and a note, if it is not usable."""
    try:
        size = image_size(candidate.image)
    except DataError:
        report.note(Reason.UNREADABLE_IMAGE, candidate.shown)
        return None, (0, 0)
    try:
        annotation = reader.read(candidate.image, size)
    except DataError as error:
        report.note(Reason.UNREADABLE_LABELS, str(error))
        return None, size
    if annotation is None:
        report.note(Reason.NO_LABEL_FILE, candidate.shown)
        return None, size
    for reason, lines in (
        (Reason.BAD_ANNOTATION, annotation.faults),
        (Reason.REPLACED, annotation.changed),
    ):
        for line in lines:
            report.note(reason, f"{candidate.shown}: {line}")
    return _at_size(annotation, size, candidate, report), size


def _at_size(
    annotation: Annotation, size: tuple[int, int], candidate: Candidate, report: PreparationReport
) -> Annotation | None:
    """The annotation with its boxes in pixels of the image; None where its size is not the image's at all."""
    if annotation.size in (None, size):
        return annotation
    assert annotation.size is not None
    (width, height), (own_width, own_height) = size, annotation.size
    across, down = width / own_width, height / own_height
    shown = f"{candidate.shown}: annotated at {own_width}x{own_height}, the image has {width}x{height}"
    # A reduced image's sides are rounded to whole pixels.
    if abs(own_height * across - height) > 1 and abs(own_width * down - width) > 1:
        turned = " (turned by its EXIF orientation?)" if annotation.size == size[::-1] else ""
        report.note(Reason.OTHER_SIZE, shown + turned)
        return None
    report.note(Reason.SCALED, shown)
    boxes = [
        NamedBox(one.name, (x1 * across, y1 * down, x2 * across, y2 * down))
        for one in annotation.boxes
        for x1, y1, x2, y2 in [one.box]
    ]
    return Annotation(boxes, size)


def _cell(
    named: NamedBox, size: tuple[int, int], recipe: SetRecipe, candidate: Candidate, report: PreparationReport
) -> tuple[list[float], str, str] | None:
    """Box within the image, kind and label; ``None``, and a note in the report, if it is no usable cell."""
    meaning = recipe.meaning(named.name)
    x1, y1, x2, y2 = named.box
    shown = f"{candidate.shown}: {named.name} [{x1:.1f}, {y1:.1f}, {x2:.1f}, {y2:.1f}]"
    if meaning is None:
        report.note(Reason.UNKNOWN_CLASS, f"{candidate.shown}: {named.name}")
        return None
    if x2 <= x1 or y2 <= y1:
        report.note(Reason.NO_AREA, shown)
        return None
    width, height = size
    inside = [
        round(max(x1, 0.0), 3),
        round(max(y1, 0.0), 3),
        round(min(x2, width), 3),
        round(min(y2, height), 3),
    ]
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        beyond = x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0
        report.note(Reason.OUTSIDE if beyond else Reason.NO_AREA, shown)
        return None
    if max(-x1, -y1, x2 - width, y2 - height) > ROUNDING_PX:
        report.note(Reason.CLIPPED, shown)
    return inside, *meaning


def _without_repeats(
    cells: list[tuple[list[float], str, str]], candidate: Candidate, report: PreparationReport
) -> list[tuple[list[float], str, str]]:
    """Cells without those whose box, kind and label were there before."""
    known: set[tuple[tuple[float, ...], str, str]] = set()
    kept = []
    for box, kind, label in cells:
        key = (tuple(box), kind, label)
        if key in known:
            report.note(Reason.REPEATED, f"{candidate.shown}: {kind} {box}")
        else:
            known.add(key)
            kept.append((box, kind, label))
    return kept
