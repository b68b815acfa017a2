"""How annotated sets are read: their form, what their class names mean, and which kinds are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from leukokit.taxonomy import KINDS, class_of, kind_of

Format = Literal["yolo", "voc", "coco", "classes"]
CellKind = Literal["leukocyte", "erythrocyte", "platelet"]


class SetRecipe(BaseModel):
    """How one annotated set is read."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    name: str = Field(description="the set's name, in the fields and in the index")
    format: Format = Field(description="form of its annotations")
    folder: Path | None = Field(default=None, description="its folder, if not its name")
    classes: dict[str, str] = Field(
        default={}, description="class name or number -> KIND or KIND:LABEL, over the usual meaning"
    )
    annotated: tuple[CellKind, ...] | None = Field(
        default=None, description="kinds annotated completely; all that occur, if left out"
    )
    labels_in_box_order: bool = Field(
        default=False, description="whether the index lists unlike labels in the order of the leukocyte boxes"
    )
    index: Path | None = Field(
        default=None,
        description="CSV in its folder, in place of the common index: file and, if known, label, "
        "photo, slide, lab, split; every file that it lists is kept, equal ones under one photo",
    )
    lab: str = Field(default="", description="with 'index': laboratory where the index gives none")
    split: Literal["", "train", "val", "test"] = Field(
        default="", description="with 'index': split where the index gives none"
    )

    @field_validator("classes")
    @classmethod
    def _known_kinds(cls, classes: dict[str, str]) -> dict[str, str]:
        for name, meaning in classes.items():
            if meaning.split(":")[0] not in KINDS:
                raise ValueError(
                    f"'{name}' is mapped to '{meaning}', whose kind must be one of {', '.join(KINDS)}"
                )
        return {_plain_class_name(name): meaning for name, meaning in classes.items()}

    @model_validator(mode="after")
    def _defaults_of_an_index(self) -> SetRecipe:
        if self.index is None and (self.lab or self.split):
            raise ValueError("'lab' and 'split' need an 'index' in the set")
        return self

    def meaning(self, name: str) -> tuple[str, str] | None:
        """Kind and label of a class name; ``None`` if it is not known."""
        plain = _plain_class_name(name)
        found = self.classes.get(plain) or self.classes.get(plain.removesuffix("s"))
        if found is not None:
            kind, _, label = found.partition(":")
            return kind, label
        known = kind_of(name)
        return None if known is None else (known, class_of(name) or "")

    def label_of(self, listed: str) -> str:
        """An index's label of a leukocyte as the taxonomy writes it; one it does not know as it stands."""
        kind, label = self.meaning(listed) or ("", "")
        return label if kind == "leukocyte" else listed.strip()


class FieldsConfig(BaseModel):
    """What ``leukokit data prepare --config`` reads: several sets under one root, with a common index."""

    model_config = ConfigDict(extra="forbid")
    root: Path = Field(description="folder of the sets; a relative one is taken from the working directory")
    index: Path = Field(description="CSV under the root: dataset, file, lab, photo, slide, label, split")
    sets: list[SetRecipe] = Field(
        min_length=1, description="the sets, the one that keeps a shared photo first"
    )


def _plain_class_name(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()
