"""What became of the images and boxes of a preparation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


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
    OTHER_SIZE = "annotated at another size than the image's"
    SCALED = "annotated at another size than the image's, boxes scaled"
    BAD_ANNOTATION = "annotation without a usable box"
    REPLACED = "rotated box, replaced by the upright one around it"
    REPEATED = "box given twice, kept once"


@dataclass(slots=True)
class PreparationReport:
    """What was prepared and what was not: ``left_out`` holds the files by reason, one line per box."""

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


def report_path(out: Path) -> Path:
    """Where the report on the prepared fields ``out`` is written."""
    return out.with_name(f"{out.stem}.report.json")
