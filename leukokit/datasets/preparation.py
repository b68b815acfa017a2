"""Annotated sets of any form into the one file that training and evaluation read.

Every copy of a photograph, in whichever set, ends on one side of the split, and whatever is left out
is reported with its reason. Images are opened for their size alone; a set streams through, and only
the names of its files (and, for COCO, its annotations) are held in memory.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from leukokit.datasets.fields import AnnotatedField, write_fields
from leukokit.datasets.formats import (
    AnnotationReader,
    ClassFolderReader,
    CocoReader,
    NamedBox,
    VocReader,
    YoloReader,
)
from leukokit.datasets.photographs import (
    NOT_PREPARED,
    SIDES,
    Photographs,
    fingerprints,
    image_size,
    likely_copies,
    read_index,
    read_own_index,
    validation_of,
)
from leukokit.datasets.recipe import FieldsConfig, SetRecipe
from leukokit.errors import ConfigError, DataError, OutputError
from leukokit.taxonomy import KINDS

ROUNDING_PX = 1.0
"""A box that leaves its image by no more than this is cut without a word: annotators round."""


class Reason(StrEnum):
    """Why something was left out, or changed."""

    EXCLUDED = "excluded by the index"
    DUPLICATE_PHOTO = "duplicate photo"
    OTHER_SIDE = "copy of a photo of a more protected split"
    UNREADABLE_IMAGE = "unreadable image"
    NO_LABEL_FILE = "no label file"
    UNREADABLE_LABELS = "unreadable label file"
    UNKNOWN_CLASS = "unknown class name"
    NO_AREA = "box without area"
    OUTSIDE = "box outside the image"
    CLIPPED = "box partly outside the image, clipped"
    PATTERN = "file name without --photo-pattern, its stem taken for the photo"
    LIKELY_COPY = "name that begins as another photo's; if a copy of it, see --photo-pattern"


@dataclass(slots=True)
class Report:
    """What was prepared and what was not: ``left_out`` holds, by reason, the files, a box a line."""

    fields: Counter[tuple[str, str]] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    left_out: dict[Reason, list[str]] = field(default_factory=dict)

    def note(self, reason: Reason, what: str) -> None:
        """Add a file, or a box of it, to those left out."""
        self.left_out.setdefault(reason, []).append(what)

    def to_json(self) -> dict[str, Any]:
        """Counts and files, ready for ``json.dumps``."""
        return {
            "fields": {
                f"{dataset} {split}": count for (dataset, split), count in sorted(self.fields.items())
            },
            "boxes": dict(sorted(self.boxes.items())),
            "left_out": {
                reason.value: {"count": len(files), "files": files}
                for reason, files in sorted(self.left_out.items())
            },
        }


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


def prepare_set(
    folder: Path,
    recipe: SetRecipe,
    out: Path,
    lab: str = "",
    photo_pattern: str | None = None,
    val: float = 0.2,
    seed: int = 0,
) -> Report:
    """Prepare one set, splitting its photographs by the order of a hash of their names.

    Args:
        folder: the set.
        recipe: its form and classes.
        out: the ``.jsonl`` to write.
        lab: laboratory of its fields.
        photo_pattern: regular expression with one group, the photograph's name in a file's name.
        val: share of the annotated photographs that goes to ``val``, rounded; the rest is ``train``.
        seed: another one gives another split.

    Raises:
        ConfigError: a bad pattern or share.  DataError: nothing can be prepared.  OutputError: cannot write.
    """
    if not 0 <= val < 1:
        raise ConfigError(f"--val is {val}; a share of at least 0 and less than 1 is needed")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; 'leukokit data list' names sets to fetch")
    pattern = None if photo_pattern is None else _compile(photo_pattern)
    report, photos, reader = Report(), Photographs(), open_reader(folder, recipe)
    images = list(reader.images())
    if not images:
        raise DataError(f"{folder}: no image in it or below it")
    contents = fingerprints(images)
    names = {}
    for image in images:
        found = pattern.search(image.name) if pattern else None
        if pattern and not (found and found[1]):
            report.note(Reason.PATTERN, _shown(image, folder))
        names[image] = found[1] if found and found[1] else image.stem
        photos.add(names[image], contents.get(image))
    copies = {} if pattern else likely_copies(names.values())
    for image, name in names.items():
        if name in copies and photos[name] != photos[copies[name]]:
            report.note(Reason.LIKELY_COPY, f"{_shown(image, folder)} and {copies[name]}")
    kinds = _kinds(reader, images, recipe)
    if recipe.annotated is None:
        recipe = recipe.model_copy(update={"annotated": _occurring(kinds, recipe)})
    chosen = validation_of((photos[names[image]] for image in kinds), val, seed)

    def candidates() -> Iterator[tuple[SetRecipe, AnnotationReader, Candidate]]:
        for image in images:
            photo, shown = photos[names[image]], _shown(image, folder)
            split = "val" if photo in chosen else "train"
            yield recipe, reader, Candidate(image, shown, lab, photo, "", split)

    _write(out, _fields(candidates(), contents, report), report)
    return report


def prepare_index(config: FieldsConfig, out: Path, root: Path | None = None) -> Report:
    """Prepare several sets whose index says which photograph and which split every file belongs to.

    Fields come in the order of the index, then those of sets with an index of their own. Such a set is
    kept file by file, because figures published on it count its repeats; equal files share a photograph.
    A ``train`` field whose photograph an earlier set of the configuration lists, in whichever split, is
    left out; so is every field of a photograph of which any row of an index, of whichever set, lies in
    a more protected split (test, then val, then train).

    Raises:
        DataError: the index or a set is missing or wrong, or nothing is left.  OutputError: cannot write.
    """
    base = config.root if root is None else root
    order = {recipe.name: position for position, recipe in enumerate(config.sets)}
    folders = {recipe.name: base / (recipe.folder or recipe.name) for recipe in config.sets}
    rows = _index_rows(config, base, folders)
    readers = {recipe.name: open_reader(folders[recipe.name], recipe) for recipe in config.sets}
    images = [folders[row["dataset"]] / row["file"] if row["dataset"] in order else None for row in rows]
    contents = fingerprints(image for image in images if image is not None)
    photos, side, owner = Photographs(), Counter[str](), dict[str, int]()
    for row, image in zip(rows, images, strict=True):
        photos.add(row["photo"], contents.get(image) if image else None)
    for row in rows:
        photo = photos[row["photo"]]
        side[photo] = max(side[photo], SIDES.get(row["split"], 0))
        if row["dataset"] in order:
            owner[photo] = min(owner.get(photo, len(order)), order[row["dataset"]])
    report = Report()

    def candidates() -> Iterator[tuple[SetRecipe, AnnotationReader, Candidate]]:
        for row, image in zip(rows, images, strict=True):
            if image is None:
                continue
            dataset, photo, split = row["dataset"], photos[row["photo"]], row["split"]
            shown = f"{dataset}/{row['file']}"
            if split in NOT_PREPARED:
                report.note(Reason.EXCLUDED, shown)
            elif split == "train" and owner[photo] < order[dataset]:
                report.note(Reason.DUPLICATE_PHOTO, shown)
            elif SIDES[split] < side[photo]:
                report.note(Reason.OTHER_SIDE, shown)
            else:
                candidate = Candidate(image, shown, row["lab"], photo, row["slide"], split, row["label"])
                yield config.sets[order[dataset]], readers[dataset], candidate

    _write(out, _fields(candidates(), contents, report), report)
    return report


def _index_rows(config: FieldsConfig, base: Path, folders: Mapping[str, Path]) -> list[dict[str, str]]:
    """Rows of the common index and of the sets' own; every set has some in exactly one of them."""
    rows = read_index(base / config.index)
    common = {row["dataset"] for row in rows}
    for recipe in config.sets:
        folder = folders[recipe.name]
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give the folder of the sets with --root")
        if recipe.index is None and recipe.name not in common:
            raise DataError(
                f"{base / config.index}: no row of dataset '{recipe.name}'; its sets are "
                f"{', '.join(sorted(common))}"
            )
        if recipe.index is not None and recipe.name in common:
            raise DataError(
                f"{base / config.index}: lists dataset '{recipe.name}', which has an index of its own, "
                f"{recipe.index}; keep one of the two"
            )
        if recipe.index is not None:
            lab = recipe.lab or recipe.name
            rows += read_own_index(folder / recipe.index, recipe.name, lab, recipe.split)
    return rows


def open_reader(folder: Path, recipe: SetRecipe) -> AnnotationReader:
    """The reader for a set's form; YOLO numbers that the recipe maps keep their number for a name."""
    if recipe.format == "yolo":
        return YoloReader(folder, {int(name): name for name in recipe.classes if name.isdecimal()})
    if recipe.format == "voc":
        return VocReader(folder)
    return CocoReader(folder) if recipe.format == "coco" else ClassFolderReader(folder)


def report_path(out: Path) -> Path:
    """Where the report on the prepared fields ``out`` is written."""
    return out.with_name(f"{out.stem}.report.json")


def _fields(
    candidates: Iterable[tuple[SetRecipe, AnnotationReader, Candidate]],
    contents: Mapping[Path, str],
    report: Report,
) -> Iterator[AnnotatedField]:
    """Read candidates into fields, leaving out what cannot be read and, without own index, equal files."""
    seen: set[tuple[str, str]] = set()
    side: dict[str, str] = {}
    for recipe, reader, candidate in candidates:
        content = contents.get(candidate.image)
        if content is not None and recipe.index is None and (recipe.name, content) in seen:
            report.note(Reason.DUPLICATE_PHOTO, candidate.shown)
            continue
        annotated = _read(recipe, reader, candidate, report)
        if annotated is None:
            continue
        if content is not None:
            seen.add((recipe.name, content))
        assert side.setdefault(candidate.photo, candidate.split) == candidate.split, candidate.photo
        report.fields[recipe.name, candidate.split] += 1
        report.boxes.update(annotated.kinds)
        yield annotated
    counts = ", ".join(f"{len(files)} {reason}" for reason, files in report.left_out.items())
    if not report.fields:
        raise DataError(f"no field is left to prepare: {counts or 'there is no image'}")
    if not report.boxes and Reason.UNKNOWN_CLASS in report.left_out:
        first = report.left_out[Reason.UNKNOWN_CLASS][0]
        raise DataError(f"no class of the set is known (first: {first}); map each: --class NAME=KIND[:LABEL]")


def _read(
    recipe: SetRecipe, reader: AnnotationReader, candidate: Candidate, report: Report
) -> AnnotatedField | None:
    try:
        size = image_size(candidate.image)
    except DataError:
        report.note(Reason.UNREADABLE_IMAGE, candidate.shown)
        return None
    try:
        named = reader.boxes(candidate.image, size)
    except DataError as error:
        report.note(Reason.UNREADABLE_LABELS, str(error))
        return None
    if named is None:
        report.note(Reason.NO_LABEL_FILE, candidate.shown)
        return None
    cells = [cell for box in named if (cell := _cell(box, size, recipe, candidate, report)) is not None]
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


def _cell(
    named: NamedBox, size: tuple[int, int], recipe: SetRecipe, candidate: Candidate, report: Report
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


def _kinds(reader: AnnotationReader, images: list[Path], recipe: SetRecipe) -> dict[Path, set[str]]:
    """Kinds in every image that will be a field; what is wrong is reported when the field itself is read."""
    kinds = {}
    for image in images:
        with contextlib.suppress(DataError):
            named = reader.boxes(image, (1, 1))
            own = {meaning[0] for box in named or () if (meaning := recipe.meaning(box.name))}
            if own or (named is not None and recipe.format != "classes"):
                kinds[image] = own
    return kinds


def _occurring(kinds: Mapping[Path, set[str]], recipe: SetRecipe) -> tuple[str, ...]:
    """Kinds that the set annotates at all; none of a picture that was never annotated with boxes."""
    found = set().union(*kinds.values()) if recipe.format != "classes" else ()
    return tuple(kind for kind in KINDS if kind in found)


def _write(out: Path, fields: Iterator[AnnotatedField], report: Report) -> None:
    beside = report_path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_fields(out, fields)
        partial = beside.with_name(beside.name + ".part")
        partial.write_text(
            json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        partial.replace(beside)
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: cannot write the prepared fields ({error.strerror})"
        ) from error


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--photo-pattern '{pattern}' is not a regular expression ({error})") from error
    if compiled.groups != 1:
        raise ConfigError(
            f"--photo-pattern '{pattern}' has {compiled.groups} groups; one, the photo's name, is needed"
        )
    return compiled


def _shown(image: Path, folder: Path) -> str:
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else image.as_posix()
