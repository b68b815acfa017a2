"""The tables of a batch, written from its manifest: counts, cells, failures, differential counts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Any, Final

from leukokit._files import write_atomically, write_error
from leukokit.batch.manifest import Entry
from leukokit.batch.outputs.parquet import ParquetTable
from leukokit.differential import Differential, differential
from leukokit.errors import ConfigError
from leukokit.taxonomy import UNCLASSIFIED
from leukokit.writers.tables import (
    Table,
    cell_columns,
    class_counts,
    column_classes,
    count_columns,
    count_row,
)

BY_FOLDER: Final = "folder"
NO_GROUP: Final = ""
FILES: Final = ("report.html", "counts.csv", "cells.csv", "differential.csv", "failures.csv", "run.json")
"""What a batch writes over all its images."""
DONE, FAILED, WAITING = "done", "failed", "waiting"
ODD_SIZE: Final = 1.4
"""Ratio of red-cell diameters from which an image is unlike its group: fields of one slide hardly do."""
FEWEST_SIZES: Final = 5
"""Fewest images of a group that tell what is usual in it."""
MANY_UNCLASSIFIED: Final = 0.2
"""Share of unclassified leukocytes from which it is said: by ``hybrid`` it is .02 to .05 in sharp photographs
of laboratories that it knows, .41 in one that it never saw (docs/explanation/classifiers.md)."""
FEWEST_LEUKOCYTES: Final = 50
"""Fewest leukocytes of a group of which a share tells that."""


@dataclass(slots=True)
class Group:
    """Images counted together: their leukocytes by class, and how many images there are."""

    classes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    images: int = 0
    failed: int = 0
    waiting: int = 0

    @property
    def count(self) -> Differential:
        """The group's differential count."""
        return differential(self.classes)


@dataclass(slots=True)
class Totals:
    """Everything over all images that report and terminal show; a few numbers a group and one an image.

    ``noted`` is how many images have notes, ``empty`` which ones have no cell, ``diameters`` the red-cell
    diameters of a group's images by name.
    """

    whole: Group = field(default_factory=Group)
    groups: dict[str, Group] = field(default_factory=dict)
    seconds: float = 0.0
    noted: int = 0
    empty: list[str] = field(default_factory=list)
    diameters: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def odd(self) -> list[tuple[str, float, float]]:
        """Images with red cells of another size than their group's: name, diameter, the median, in pixels."""
        found = []
        for diameters in self.diameters.values():
            usual = median_low(diameters.values())
            if len(diameters) >= FEWEST_SIZES:
                found += [
                    (name, diameter, usual)
                    for name, diameter in diameters.items()
                    if not 1 / ODD_SIZE < diameter / usual < ODD_SIZE
                ]
        return found

    @property
    def doubtful(self) -> list[tuple[str, float, int]]:
        """Groups, or all, with many unclassified cells: name, their share, number of leukocytes."""
        found = []
        for name, group in (self.groups or {NO_GROUP: self.whole}).items():
            leukocytes = group.classes.total()
            share = group.classes[UNCLASSIFIED] / max(leukocytes, 1)
            if leukocytes >= FEWEST_LEUKOCYTES and share > MANY_UNCLASSIFIED:
                found.append((name, share, leukocytes))
        return sorted(found, key=lambda group: (-group[1], group[0]))

    @property
    def ungrouped(self) -> int:
        """Images that are in no group."""
        return self.whole.images - sum(group.images for group in self.groups.values())


class Grouping:
    """Which group an image belongs to.

    Args:
        rule: ``folder``, or a regular expression searched for in the image's relative path: its first group,
            or else all that it matches, names the group. None for no groups.

    Raises:
        ConfigError: not a regular expression.
    """

    def __init__(self, rule: str | None) -> None:
        self.rule = rule
        try:
            self._pattern = re.compile(rule) if rule and rule != BY_FOLDER else None
        except re.error as error:
            raise ConfigError(
                f"--group-by {rule}: not a regular expression ({error}); 'folder' groups by folder"
            ) from error

    def __call__(self, name: Path) -> str:
        """The group's name; empty where the image is in none."""
        if self.rule == BY_FOLDER:
            return name.parent.as_posix()
        found = self._pattern.search(name.as_posix()) if self._pattern else None
        if found is None:
            return NO_GROUP
        return (found[1] if found.re.groups else found[0]) or NO_GROUP


def write_tables(
    out: Path,
    entries: Iterable[Entry],
    classes: Sequence[str],
    grouping: Grouping,
    target: int | None,
    parquet: bool = False,
) -> Totals:
    """Write ``counts.csv``, ``cells.csv``, ``failures.csv`` and ``differential.csv``.

    Args:
        out: folder to write to.
        entries: every image in its order, read once; one at a time is in memory.
        classes: the classifier's, empty without one.
        grouping: which images are counted together.
        target: leukocytes that a differential count is to have, if the user said.
        parquet: write ``cells.parquet``, too; else one that is there is removed.

    Raises:
        OutputError: a table cannot be written.
    """
    named = [*classes, UNCLASSIFIED] if classes else []
    totals = Totals()
    shown = column_classes(classes)
    figures = count_columns(shown)
    counts = Table(out / "counts.csv", [*figures, "group", "status"])
    columns = cell_columns(shown)
    cells = Table(out / "cells.csv", columns)
    columnar = _columnar(out / "cells.parquet", columns, parquet)
    failures = Table(out / "failures.csv", ["image", "cause"])
    shares = Table(
        out / "differential.csv",
        [
            *("scope", "name", "class", "count", "percent", "low_95", "high_95", "n", "below_minimum"),
            *("unclassified", "unknown", "erythroblasts_per_100", "still_needed"),
        ],
    )
    for entry in entries:
        name, group = entry.name.as_posix(), grouping(entry.name)
        members = [totals.whole]
        if group != NO_GROUP:
            members.append(totals.groups.setdefault(group, Group()))
        for member in members:
            member.images += 1
            member.failed += bool(entry.error)
            member.waiting += entry.document is None and not entry.error
        if entry.document is None:
            status = FAILED if entry.error else WAITING
            counts.row([name, *[None] * (len(figures) - 1), group, status])
            if entry.error:
                failures.row([name, entry.error])
            continue
        document, by_class = entry.document, class_counts(entry.document)
        for member in members:
            member.classes.update(by_class)
            member.kinds.update(document["counts"])
        totals.seconds += document["seconds"]
        totals.noted += bool(document["notes"])
        if not entry.cells:
            totals.empty.append(name)
        if diameter := document["erythrocyte_diameter_px"]:
            totals.diameters.setdefault(group, {})[name] = diameter
        counts.row([*count_row(name, document, shown), group, DONE])
        cells.write(entry.cells)
        if columnar is not None:
            columnar.write(name, entry.cells)
        if named:
            _share_rows(shares, "image", name, differential(by_class), None)
    if named:
        for group in sorted(totals.groups):
            _share_rows(shares, "group", group, totals.groups[group].count, target)
        _share_rows(shares, "all", "", totals.whole.count, target)
    for table in (counts, cells, failures, shares):
        table.finish()
    if columnar is not None:
        columnar.finish()
    return totals


def _columnar(path: Path, columns: Sequence[str], wanted: bool) -> ParquetTable | None:
    """The table as Parquet; unwanted, an earlier run's goes, which may contradict the others."""
    if wanted:
        return ParquetTable(path, columns)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return None


def still_needed(count: Differential, target: int) -> int:
    """Classified leukocytes that a differential count lacks to the target."""
    return max(target - count.n, 0)


def images_needed(group: Group, target: int) -> int | None:
    """Images like the group's that would bring the count to the target; None where they hold no leukocyte."""
    lacking, seen = still_needed(group.count, target), group.images - group.failed - group.waiting
    if not lacking:
        return 0
    return math.ceil(lacking * seen / group.count.n) if group.count.n else None


def write_run(out: Path, document: dict[str, Any]) -> None:
    """Write ``run.json``: what was run, on what, with what."""
    import json

    text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
    write_atomically(out / "run.json", text + "\n")


def _share_rows(table: Table, scope: str, name: str, count: Differential, target: int | None) -> None:
    per_100 = count.erythroblasts_per_100
    needed = "" if target is None else still_needed(count, target)
    for label, share in count.shares.items():
        table.row(
            [
                *(scope, name, label, share.count),
                "" if share.percent is None else f"{share.percent:.2f}",
                *(f"{share.low:.2f}", f"{share.high:.2f}", count.n, str(count.below_minimum).lower()),
                count.unclassified,
                "" if count.unknown is None else count.unknown,
                "" if per_100 is None else f"{per_100:.2f}",
                needed,
            ]
        )
