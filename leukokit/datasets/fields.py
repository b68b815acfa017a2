"""Annotated fields of view: what ``leukokit data prepare`` writes and training and evaluation read.

One JSON object per line, so that a set of a hundred thousand fields streams and diffs well::

    {"image": "txl-pbc/images/train/a.jpg", "dataset": "txl-pbc", "lab": "pbc", "photo": "a", "slide": "",
     "split": "train", "annotated_kinds": ["leukocyte", "erythrocyte", "platelet"],
     "boxes": [[x1, y1, x2, y2], ...], "kinds": ["leukocyte", ...], "labels": ["", ...]}

``annotated_kinds`` names the kinds that are annotated *completely*: a cell of any other kind may be in the
picture without a box, and neither training nor evaluation may take its absence for a fact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from leukokit._files import read_regular_file
from leukokit._text import one_line
from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, MIN_ERYTHROCYTES
from leukokit.errors import DataError
from leukokit.taxonomy import KINDS

WeightsName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="name of the weights, and of their folder under the output folder",
    ),
]
"""A name that is no path: a recipe writes under the output folder and nowhere else."""


@dataclass(frozen=True, slots=True)
class AnnotatedField:
    """One annotated field of view; ``boxes`` are xyxy pixels of the image as stored, EXIF applied."""

    image: Path
    dataset: str
    lab: str
    photo: str
    slide: str
    split: str
    annotated_kinds: tuple[str, ...]
    boxes: list[list[float]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def box_array(self) -> npt.NDArray[np.float32]:
        """Boxes as float32 (N, 4) xyxy."""
        return np.asarray(self.boxes, dtype=np.float32).reshape(-1, 4)

    def kind_array(self) -> npt.NDArray[np.int64]:
        """Kinds as int64 (N,), positions in ``taxonomy.KINDS``."""
        return np.asarray([KINDS.index(kind) for kind in self.kinds], dtype=np.int64)

    def cell_diameter_px(self) -> float | None:
        """Median erythrocyte box side, or what the leukocytes imply where fewer than three are boxed."""
        boxes, kinds = self.box_array(), self.kind_array()
        sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        erythrocytes = sides[kinds == KINDS.index("erythrocyte")]
        if len(erythrocytes) >= MIN_ERYTHROCYTES:
            return float(np.median(erythrocytes))
        leukocytes = sides[kinds == KINDS.index("leukocyte")]
        return float(np.median(leukocytes)) / LEUKOCYTE_TO_ERYTHROCYTE if len(leukocytes) else None


class Selection(BaseModel):
    """Fields of one prepared data set; an empty list means all."""

    model_config = ConfigDict(extra="forbid")
    dataset: str
    splits: list[str] = ["train"]
    labs: list[str] = []
    slides: list[str] = []

    def accepts(self, field: AnnotatedField) -> bool:
        """Whether the field belongs to the selection."""
        return (
            field.dataset == self.dataset
            and field.split in self.splits
            and (not self.labs or field.lab in self.labs)
            and (not self.slides or field.slide in self.slides)
        )


def read_fields(path: Path) -> Iterator[AnnotatedField]:
    """Read a prepared ``.jsonl`` file; image paths are taken relative to its folder.

    Raises:
        DataError: the file is missing, or a line is not an annotated field; names the line.
    """
    try:
        lines = read_regular_file(path).decode().splitlines()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not text"
        raise DataError(f"{path}: cannot be read ({cause}); 'leukokit data prepare' makes it") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _parse_field(line, path.parent)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            cause = "of an earlier version; prepare it again" if '"labelled"' in line else one_line(error)
            raise DataError(f"{path}, line {number}: not an annotated field ({cause})") from error


def select_fields(
    path: Path,
    datasets: Sequence[str] | None = None,
    labs: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    slides: Sequence[str] | None = None,
) -> list[AnnotatedField]:
    """Read the prepared fields of some data sets, laboratories, splits and slides; all where none is named.

    Raises:
        DataError: the file cannot be read, or no field is selected; the message names the choices.
    """
    known = list(read_fields(path))
    chosen = [field for field in known if is_selected(field, datasets, labs, splits, slides)]
    if not chosen:
        raise DataError(
            f"{path}: no field is of that data set, laboratory, split and slide; {known_values(known)}"
        )
    return chosen


def is_selected(
    field: AnnotatedField,
    datasets: Sequence[str] | None = None,
    labs: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    slides: Sequence[str] | None = None,
) -> bool:
    """Whether a field is of these data sets, laboratories, splits and slides."""
    wanted = ((field.dataset, datasets), (field.lab, labs), (field.split, splits), (field.slide, slides))
    return all(not names or value in names for value, names in wanted)


def known_values(fields: Iterable[AnnotatedField]) -> str:
    """What a selection may choose from: ``there are: SET (lab LAB, LAB; split SPLIT, SPLIT), SET ...``."""
    labs: dict[str, set[str]] = {}
    splits: dict[str, set[str]] = {}
    for one in fields:
        labs.setdefault(one.dataset, set()).add(one.lab)
        splits.setdefault(one.dataset, set()).add(one.split)
    sets = (
        f"{name} (lab {', '.join(sorted(labs[name]))}; split {', '.join(sorted(splits[name]))})"
        for name in sorted(labs)
    )
    return f"there are: {', '.join(sets) or 'no fields'}"


def write_fields(path: Path, fields: Iterable[AnnotatedField]) -> None:
    """Write fields as ``.jsonl``, whole or not at all; image paths become relative to the file's folder."""
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            for annotated in fields:
                row = asdict(annotated)
                row["image"] = _relative(annotated.image, path.parent)
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_held_back(photo: str, fraction: float) -> bool:
    """Whether a photograph is in the given fraction kept for choosing a checkpoint; fixed by its name."""
    digest = hashlib.sha256(photo.encode()).digest()
    return int.from_bytes(digest[:4], "big") < fraction * 2**32


def _relative(image: Path, folder: Path) -> str:
    import os

    return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()


def _parse_field(line: str, folder: Path) -> AnnotatedField:
    row = json.loads(line)
    row["image"] = folder / row["image"]
    row["annotated_kinds"] = tuple(row["annotated_kinds"])
    annotated = AnnotatedField(**row)
    boxes, kinds = annotated.box_array(), annotated.kind_array()
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise ValueError("a box without extent")
    if len(boxes) != len(kinds) or len(annotated.labels) not in (0, len(kinds)):
        raise ValueError(f"{len(boxes)} boxes, {len(kinds)} kinds, {len(annotated.labels)} labels")
    return annotated
