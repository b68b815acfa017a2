"""The answers that benchmarks/study.py kept, against the true labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from study_folds import Fold, Study, answers_of, test_cells

from leukokit.errors import DataError
from leukokit.training.cells import AnnotatedCell

TOGETHER = ", all seeds together"
"""Ends the name of a method whose probabilities are the mean over the seeds: one answer a cell."""
Grouped = tuple["Answers", npt.NDArray[np.str_]]
"""Answers, and the laboratory of each cell."""
FEWEST = 10
"""Cells of a class in a laboratory from which its recall is counted in the second mean."""


@dataclass
class Answers:
    """A method's answers on one test set: share of the seeds that were right on each cell.

    Attributes:
        right: (seeds, N) bool.  labels: (N,) int64.  photos: (N,) str.
    """

    right: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    photos: npt.NDArray[np.str_]

    @property
    def share(self) -> npt.NDArray[np.float64]:
        """(N,) float64."""
        return np.asarray(self.right.mean(axis=0))

    def common(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: cells of classes with at least ``FEWEST``."""
        return np.isin(self.labels, np.flatnonzero(np.bincount(self.labels, minlength=1) >= FEWEST))

    def take(self, kept: npt.NDArray[np.bool_]) -> Answers:
        """Some of the cells."""
        return Answers(self.right[:, kept], self.labels[kept], self.photos[kept])


class Kept:
    """All answers of a study."""

    def __init__(self, study: Study, out: Path) -> None:
        self.study, self.out = study, out
        self._tests: dict[str, dict[str, list[AnnotatedCell]]] = {}

    def tests(self, lab: str) -> dict[str, list[AnnotatedCell]]:
        """Test sets of a fold."""
        if lab not in self._tests:
            self._tests[lab] = test_cells(Fold(self.study, self.out, lab, self.study.seeds[0]))
        return self._tests[lab]

    def get(self, method: str, lab: str, test: str, seeds: Sequence[int] | None = None) -> Answers | None:
        """Answers of the seeds that are there; None where there is none."""
        cells, each = self.tests(lab)[test], method.removesuffix(TOGETHER)
        labels = np.array([cell.label for cell in cells])
        photos = np.array([cell.field.source.photo for cell in cells])
        found = []
        for seed in self.study.seeds if seeds is None else seeds:
            path = answers_of(Fold(self.study, self.out, lab, seed), each)
            if path.exists():
                with np.load(path) as stored:
                    found.append(stored[test])
                if len(found[-1]) != len(cells):
                    raise DataError(f"{path}: of other cells; delete it and run the study again")
        if not found or (each != method and len(found) < len(self.study.seeds)):
            return None
        if each != method:
            found = [np.mean([softmax(logits, axis=1) for logits in found], axis=0)]
        return Answers(np.stack([one.argmax(axis=1) == labels for one in found]), labels, photos)

    @cached_property
    def labs(self) -> list[str]:
        """Laboratories that are left out in turn."""
        return self.study.laboratories

    def unseen(
        self, method: str, seeds: Sequence[int] | None = None, common: bool = False, test: str = ""
    ) -> Grouped | None:
        """Answers on every laboratory by networks trained without it, and the laboratory of each cell."""
        labs = ["pbc", "raabin"] if test else self.labs
        parts = [self.get(method, lab, test or lab, seeds) for lab in labs]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        if common:
            found = [part.take(part.common()) for part in found]
        runs = min(len(part.right) for part in found)
        groups = np.concatenate([[lab] * len(p.labels) for lab, p in zip(labs, found, strict=True)])
        return (
            Answers(
                np.concatenate([part.right[:runs] for part in found], axis=1),
                np.concatenate([part.labels for part in found]),
                np.concatenate([part.photos for part in found]),
            ),
            groups,
        )
