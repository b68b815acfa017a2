"""One review of a batch: its cells, the decisions about them, and the counts that follow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from leukokit.batch.decisions import ARTEFACT, NOT_A_LEUKOCYTE, NOT_LEUKOCYTES, CellKey, DecisionLog, Verdict
from leukokit.batch.manifest_files import query_manifest
from leukokit.batch.outputs.write import OUTPUT_CHOICE
from leukokit.batch.recounting import recount
from leukokit.differential import Differential, differential
from leukokit.errors import ConfigError, DataError
from leukokit.review.cells import ReviewBatch, ReviewCell, read_batch
from leukokit.review.corrections import MAX_LABEL, label_of, write_corrections
from leukokit.taxonomy import (
    ERYTHROBLAST,
    IMMATURE_GRANULOCYTE,
    LEUKOCYTE_CLASSES,
    UNCLASSIFIED,
    UNKNOWN,
    colour_of,
)

FURTHER_LABELS: Final = (IMMATURE_GRANULOCYTE, "blast", ERYTHROBLAST, "smudge cell", ARTEFACT)
"""Labels that a reviewer may give beside the classifier's own."""
MAX_LABELS: Final = 20


class ReviewSession:
    """A batch under review; several threads may use it.

    Args:
        results: folder that ``leukokit batch`` wrote.
        labels: further labels of the laboratory; at most 20 with the classifier's and the usual ones.

    Raises:
        ConfigError: no finished batch, or too many labels.
        OutputError: decisions cannot be stored there.
    """

    def __init__(self, results: Path, labels: Sequence[str] = ()) -> None:
        self.results = results
        self.batch: ReviewBatch = read_batch(results)
        self.labels = _choices(self.batch, labels)
        self.log = DecisionLog(results, self.batch.weights)
        self._numbers = {cell.key: number for number, cell in enumerate(self.batch.cells)}

    def close(self) -> None:
        """Close the log; ``finish`` writes the results."""
        self.log.close()

    def finish(self) -> list[Path]:
        """Write the corrections as files, and the batch's tables and report with people's labels.

        They are summed up as the last time: same groups, same target, same review threshold.

        Returns:
            The files written.

        Raises:
            OutputError: a file cannot be written, or another process works on the folder.
        """
        corrections = write_corrections(self.results, self.log)
        rows = query_manifest(self.results, f"SELECT value FROM facts WHERE key = '{OUTPUT_CHOICE}'")
        choice = json.loads(rows[0][0]) if rows else {}
        return [*corrections, *recount(self.results, **choice).files]

    def describe(self) -> dict[str, Any]:
        """Return the whole batch as JSON for the page; cells as rows, to keep it small."""
        fields = list(self.batch.fields.values())
        places = {field.name: place for place, field in enumerate(fields)}
        return {
            "name": self.results.absolute().name,
            "labels": [{"name": name, "colour": colour_of(name)} for name in self.labels],
            "unclassified": UNCLASSIFIED,
            "unknown": UNKNOWN,
            "notLeukocyte": NOT_A_LEUKOCYTE,
            "fields": [
                {"name": f.name, "slide": str(Path(f.name).parent), "width": f.width, "height": f.height}
                for f in fields
            ],
            "cells": [_row(cell, places[cell.key.image]) for cell in self.batch.cells],
            **self.state(self.log.current()),
        }

    def state(self, changed: Mapping[CellKey, Verdict | None]) -> dict[str, Any]:
        """Return verdicts of cells, and the counts with all decisions, as JSON."""
        current = self.log.current()
        rows = [
            [self._numbers[key], verdict and verdict.label, verdict and verdict.reviewer]
            for key, verdict in changed.items()
            if key in self._numbers
        ]
        counts = self._counts(current)
        return {"verdicts": rows, "reviewed": len(current), "differential": _as_json(differential(counts))}

    def decide(self, numbers: Iterable[int], label: str | None, reviewer: str) -> dict[str, Any]:
        """Store a label for cells; None takes decisions back. See ``state`` for what is returned.

        Raises:
            DataError: not a usable label or name.
            IndexError: no such cell.
        """
        chosen = [self._cell(number) for number in dict.fromkeys(numbers)]
        name = None if label is None else label_of(label, "the label")
        return self.state(
            self.log.decide([(cell.key, cell.label) for cell in chosen], name, _person(reviewer))
        )

    def undo(self, reviewer: str) -> dict[str, Any]:
        """Take back the reviewer's last step that is still in force."""
        return self.state(self.log.undo(_person(reviewer)))

    def _cell(self, number: int) -> ReviewCell:
        if not 0 <= number < len(self.batch.cells):
            raise IndexError(number)
        return self.batch.cells[number]

    def _counts(self, current: Mapping[CellKey, Verdict]) -> Counter[str]:
        counts: Counter[str] = Counter(dict.fromkeys(self.batch.classes or LEUKOCYTE_CLASSES, 0))
        for cell in self.batch.cells:
            verdict = current.get(cell.key)
            counts[verdict.label if verdict else cell.label or UNCLASSIFIED] += 1
        return Counter({label: count for label, count in counts.items() if label not in NOT_LEUKOCYTES})


def _person(name: str) -> str:
    text = " ".join(name.split())
    if not text or len(text) > MAX_LABEL or not text.isprintable():
        raise DataError(f"a reviewer's name has 1 to {MAX_LABEL} printable characters")
    return text


def _choices(batch: ReviewBatch, further: Sequence[str]) -> tuple[str, ...]:
    wanted = (*LEUKOCYTE_CLASSES, *batch.classes, *FURTHER_LABELS, *further)
    names = dict.fromkeys(label_of(name, "the labels") for name in wanted)
    chosen = tuple(name for name in names if name not in (UNKNOWN, UNCLASSIFIED, NOT_A_LEUKOCYTE))
    if len(chosen) > MAX_LABELS:
        raise ConfigError(f"{len(chosen)} labels to choose from; {MAX_LABELS} at most, so leave some out")
    return chosen


def _row(cell: ReviewCell, field: int) -> list[Any]:
    box = [round(side, 1) for side in cell.box]
    return [field, cell.key.cell, *box, cell.label or UNCLASSIFIED, round(cell.probability, 4), cell.best]


def _as_json(count: Differential) -> dict[str, Any]:
    return {
        "n": count.n,
        "unclassified": count.unclassified,
        "unknown": count.unknown or 0,
        "erythroblasts": count.erythroblasts or 0,
        "shares": [
            {"label": name, "count": s.count, "percent": s.percent, "low": s.low, "high": s.high}
            for name, s in count.shares.items()
        ],
    }
