"""Annotated sets of any form into the one file that training and evaluation read.

Every copy of a photograph, in whichever set, ends on one side of the split, and whatever is left out is
reported with its reason. Most images are opened for their size alone; a set streams through, and only the
names of its files (and, for COCO, its annotations) are held in memory.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from leukokit._files import make_folder, write_atomically
from leukokit._patterns import compile_pattern, refused_pattern, search_all
from leukokit.datasets.fields import AnnotatedField, write_fields
from leukokit.datasets.formats import (
    AnnotationReader,
    ClassFolderReader,
    CocoReader,
    VocReader,
    YoloReader,
)
from leukokit.datasets.photographs import (
    NOT_PREPARED,
    SIDES,
    Photographs,
    fingerprints,
    likely_copies,
    photo_name,
    read_index,
    read_own_index,
    validation_of,
)
from leukokit.datasets.reading import Candidate, read_candidates
from leukokit.datasets.recipe import FieldsConfig, SetRecipe
from leukokit.datasets.report import PreparationReport, Reason, report_path
from leukokit.errors import ConfigError, DataError, OutputError
from leukokit.taxonomy import KINDS

PATTERN = "--photo-pattern"


def prepare_set(
    folder: Path,
    recipe: SetRecipe,
    out: Path,
    lab: str = "",
    photo_pattern: str | None = None,
    val: float = 0.2,
    seed: int = 0,
) -> PreparationReport:
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
    if photo_pattern is not None and (groups := compile_pattern(photo_pattern, PATTERN).groups) != 1:
        why = f"has {groups} groups; one, the photo's name, is needed"
        raise refused_pattern(photo_pattern, PATTERN, why)
    if not 0 <= val < 1:
        raise ConfigError(f"--val is {val}; a share of at least 0 and less than 1 is needed")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; 'leukokit data list' names sets to fetch")
    report, photos, reader = PreparationReport(), Photographs(), open_reader(folder, recipe)
    images = reader.images()
    if not images:
        raise DataError(f"{folder}: no image in it or below it")
    for fault in reader.faults:
        report.note(Reason.BAD_ANNOTATION, fault)
    contents = fingerprints(images)
    names = _photo_names(images, photo_pattern, folder, report)
    for image, name in names.items():
        photos.add(name, contents.get(image))
    copies = {} if photo_pattern else likely_copies(names.values())
    for image, name in names.items():
        if name in copies and photos[name] != photos[copies[name]]:
            report.note(Reason.LIKELY_COPY, f"{_relative_name(image, folder)} and {copies[name]}")
    kinds = _kinds(reader, images, recipe)
    if recipe.annotated is None:
        recipe = recipe.model_copy(update={"annotated": _occurring(kinds, recipe)})
    chosen = validation_of((photos[names[image]] for image in kinds), val, seed)

    def candidates() -> Iterator[tuple[SetRecipe, AnnotationReader, Candidate]]:
        for image in images:
            photo, shown = photos[names[image]], _relative_name(image, folder)
            split = "val" if photo in chosen else "train"
            yield recipe, reader, Candidate(image, shown, lab, photo, "", split)

    _write_fields(out, read_candidates(candidates(), contents, report), report)
    return report


def prepare_index(config: FieldsConfig, out: Path) -> PreparationReport:
    """Prepare several sets whose index says which photograph and which split every file belongs to.

    Fields come in the order of the index, then those of sets with an index of their own. Such a set is
    kept file by file, because figures published on it count its repeats; equal files share a photograph.
    A ``train`` field whose photograph an earlier set of the configuration lists, in whichever split, is
    left out; so is every field of a photograph of which any row of an index, of whichever set, lies in
    a more protected split (test, then val, then train).

    Raises:
        DataError: the index or a set is missing or wrong, or nothing is left.  OutputError: cannot write.
    """
    base = config.root
    order = {recipe.name: position for position, recipe in enumerate(config.sets)}
    folders = {recipe.name: base / (recipe.folder or recipe.name) for recipe in config.sets}
    rows = _index_rows(config, base, folders)
    readers = {recipe.name: open_reader(folders[recipe.name], recipe) for recipe in config.sets}
    faults = [f"{name}: {fault}" for name, reader in readers.items() for fault in reader.faults]
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
    report = PreparationReport()
    for fault in faults:
        report.note(Reason.BAD_ANNOTATION, fault)

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

    _write_fields(out, read_candidates(candidates(), contents, report), report)
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


def _relative_name(image: Path, folder: Path) -> str:
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else image.as_posix()


def _photo_names(
    images: list[Path], photo_pattern: str | None, folder: Path, report: PreparationReport
) -> dict[Path, str]:
    """The photograph that each image shows, by the user's pattern or by its name."""
    if photo_pattern is None:
        return {image: photo_name(image) for image in images}
    found = search_all(photo_pattern, [image.name for image in images], PATTERN)
    names = {}
    for image, match in zip(images, found, strict=True):
        name = match[1] if match else None
        if not name:
            report.note(Reason.PATTERN, _relative_name(image, folder))
        names[image] = name or photo_name(image)
    return names


def _kinds(reader: AnnotationReader, images: list[Path], recipe: SetRecipe) -> dict[Path, set[str]]:
    """Kinds in every image that will be a field; what is wrong is reported when the field itself is read."""
    kinds = {}
    for image in images:
        with contextlib.suppress(DataError):
            annotation = reader.read(image, (1, 1))
            boxes = annotation.boxes if annotation else ()
            own = {meaning[0] for box in boxes if (meaning := recipe.meaning(box.name))}
            if own or (annotation is not None and recipe.format != "classes"):
                kinds[image] = own
    return kinds


def _occurring(kinds: Mapping[Path, set[str]], recipe: SetRecipe) -> tuple[str, ...]:
    """Kinds that the set annotates at all; none of a picture that was never annotated with boxes."""
    found = set().union(*kinds.values()) if recipe.format != "classes" else ()
    return tuple(kind for kind in KINDS if kind in found)


def _write_fields(out: Path, fields: Iterator[AnnotatedField], report: PreparationReport) -> None:
    make_folder(out.parent)
    try:
        write_fields(out, fields)
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: cannot write the prepared fields ({error.strerror})"
        ) from error
    write_atomically(report_path(out), json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n")
