"""The folds of benchmarks/study.py: what each trains on, is tested on, and where its answers are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from study_shifts import SHIFTS
from study_two_steps import TwoStepRecipe

from leukokit.datasets.detected import load_detected
from leukokit.datasets.fields import Selection
from leukokit.taxonomy import LEUKOCYTE_CLASSES
from leukokit.training.cells import AnnotatedCell, annotated_cells
from leukokit.training.classifier import ClassifierRecipe
from leukokit.training.hybrid import HybridRecipe

KNOWN: Final = "known"
"""The fold that leaves no laboratory out."""
CLASSES: Final = list(LEUKOCYTE_CLASSES)
BUILDERS: Final = ("knn", "delaunay", "radius")
ADAPTED: Final = "cnn adapted"
MEAN: Final = "cnn mean of the seeds"
PAPER: Final = ("TEST", "TEST_SIMPLE")
GROUP_NORM: Final = "group normalisation, whole backbone trained"
END_TO_END: Final = ("hybrid end to end", "cnn end to end")
"""The hybrid as it ships, CNN and graph network trained at once and both answering; and that CNN."""
END_TO_END_CONTROLS: Final = ("picture alone", "without links", "links shuffled")
Tests = dict[str, list[AnnotatedCell]]


class Study(BaseModel):
    """What ``--config`` says."""

    model_config = ConfigDict(extra="forbid")
    fields: Path
    detector: Path
    cells: list[Path]
    seeds: list[int]
    laboratories: list[str]
    train: list[str]
    held_out_slides: list[str]
    cnn: dict[str, Any]
    altarawneh: dict[str, Any]
    hybrid: dict[str, Any]
    levers: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Fold:
    """One laboratory left out, or none; one seed; the folder of what is made; where networks are trained."""

    study: Study
    out: Path
    lab: str
    seed: int
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """Where the answers of this fold and seed are kept."""
        return self.out / f"{self.lab}-{self.seed}"

    def data(self) -> dict[str, Any]:
        """What every recipe of the fold has in common."""
        study = self.study
        held = set(study.held_out_slides) if self.lab == KNOWN else set()
        kept = sorted(_slides(study, "chula") - held)
        return {
            "cells": study.cells,
            "train": [
                Selection(dataset=name, slides=kept if name == "chula" else []) for name in study.train
            ],
            "leave_out": [] if self.lab == KNOWN else [self.lab],
            "seed": self.seed,
            "check_every": 10_000,
        }

    def recipe(self, name: str, **changes: Any) -> ClassifierRecipe:
        """The recipe of ``cnn`` or ``altarawneh``."""
        own = self.study.cnn if name == "cnn" else self.study.altarawneh
        return ClassifierRecipe(name=name, classifier=name, workers=0, **(self.data() | own | changes))

    def end_to_end(self) -> HybridRecipe:
        """The recipe of ``hybrid``, trained end to end in as many steps as the CNN is alone."""
        return HybridRecipe(name="hybrid", classifier="hybrid", workers=0, **(self.data() | self.study.cnn))

    def two_steps(self) -> TwoStepRecipe:
        """The recipe of a hybrid on the fold's CNN."""
        own = {key: value for key, value in self.study.cnn.items() if key == "crop_px"} | self.study.hybrid
        cnn = self.folder / "cnn" / "best.safetensors"
        return TwoStepRecipe(name="hybrid", classifier="hybrid", trained_cnn=cnn, **(self.data() | own))


def test_cells(fold: Fold) -> Tests:
    """The test sets of a fold: cells of known classes, every photograph once."""
    lab, slides = fold.lab, fold.study.held_out_slides
    every = annotated_cells(fold.study.cells, CLASSES, lambda _: True)
    if lab != KNOWN:
        mine = [c for c in every if c.field.source.lab == lab and c.field.source.dataset != "kaggle-wbc"]
        tests = {lab: _once(mine)}
        shifted = [lab] if lab in ("pbc", "raabin") else []
    else:
        shifted = ["pbc", "raabin"]
        validation = {
            name: [
                c
                for c in every
                if (c.field.source.dataset, c.field.source.split, c.field.source.lab)
                == ("txl-pbc", "val", name)
            ]
            for name in shifted
        }
        kaggle = [c for c in every if c.field.source.dataset == "kaggle-wbc"]
        simple = ["TEST_SIMPLE" in c.field.source.image.parts for c in kaggle]
        tests = validation | {
            "chula": [c for c in every if c.field.source.lab == "chula" and c.field.source.slide in slides],
            "bccd": [c for c in every if c.field.source.dataset == "bccd" and c.field.source.split == "test"],
            "TEST": [c for c, alone in zip(kaggle, simple, strict=True) if not alone],
            "TEST_SIMPLE": [c for c, alone in zip(kaggle, simple, strict=True) if alone],
        }
    for name in SHIFTS:
        cells = annotated_cells([fold.out / "shifted" / name], CLASSES, lambda f: f.source.lab in shifted)
        if shifted:
            tests[name] = cells
    return {name: [c for c in cells if c.label >= 0] for name, cells in tests.items()}


def answers_of(fold: Fold, name: str) -> Path:
    """The file of a method's logits, an array a test set."""
    return fold.folder / f"{slug(name)}.npz"


def _once(cells: list[AnnotatedCell]) -> list[AnnotatedCell]:
    """Cells of each photograph from the one set that shows it best: BCCD's own before copies of it."""
    owner: dict[str, str] = {}
    for cell in sorted(cells, key=lambda c: c.field.source.dataset == "txl-pbc"):
        owner.setdefault(cell.field.source.photo, cell.field.source.dataset)
    return [c for c in cells if owner[c.field.source.photo] == c.field.source.dataset]


def _slides(study: Study, dataset: str) -> set[str]:
    sources = (f.source for folder in study.cells for f in load_detected(folder).fields)
    return {source.slide for source in sources if source.dataset == dataset}


def slug(name: str) -> str:
    """A name as a file's."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)
