"""What is counted over the images of a batch, of all and of each group."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Final

from leukokit.batch.outputs.grouping import NO_GROUP
from leukokit.batch.records import Entry
from leukokit.differential import Differential, differential
from leukokit.writers.tables import class_counts

ODD_SIZE: Final = 1.4
"""Ratio of erythrocyte diameters from which an image differs from its group; fields of one slide rarely
do."""
MIN_SIZES: Final = 5
"""Fewest images of a group that show what is usual in it."""


@dataclass(slots=True)
class GroupCounts:
    """Images counted together.

    Attributes:
        classes: leukocytes by class, the unclassified too; empty without a classifier.
        kinds: cells by kind.
        images: all of them.
        failed: images without results.
        waiting: images that were not processed yet.
        machine: leukocytes by class as the classifier labelled them; empty where nobody reviewed the batch.
        reviewed: leukocytes whose label a person gave.
    """

    classes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    images: int = 0
    failed: int = 0
    waiting: int = 0
    machine: Counter[str] = field(default_factory=Counter)
    reviewed: int = 0

    @property
    def done(self) -> int:
        """Images with results."""
        return self.images - self.failed - self.waiting

    @property
    def differential(self) -> Differential:
        """The group's differential count."""
        return differential(self.classes)


@dataclass(slots=True)
class Totals:
    """Everything over all images that report and terminal show; a few numbers per group and one per image.

    Attributes:
        whole: all images.
        groups: images by group; those in no group are in none of them.
        seconds: time spent on the images.
        with_notes: how many images have notes.
        empty: images without any cell.
        diameters: erythrocyte diameters in pixels of each group's images, by name.
    """

    whole: GroupCounts = field(default_factory=GroupCounts)
    groups: dict[str, GroupCounts] = field(default_factory=dict)
    seconds: float = 0.0
    with_notes: int = 0
    empty: list[str] = field(default_factory=list)
    diameters: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, entry: Entry, group: str) -> None:
        """Count an image."""
        members = [self.whole]
        if group != NO_GROUP:
            members.append(self.groups.setdefault(group, GroupCounts()))
        for member in members:
            member.images += 1
            member.failed += bool(entry.error)
            member.waiting += entry.document is None and not entry.error
        document, name = entry.document, entry.name.as_posix()
        if document is None:
            return
        by_class = class_counts(document)
        for member in members:
            member.classes.update(by_class)
            member.kinds.update(document["counts"])
            member.machine.update(document.get("machine_classes", {}))
            member.reviewed += document.get("reviewed", 0)
        self.seconds += document["seconds"]
        self.with_notes += bool(document["notes"])
        if not entry.cells:
            self.empty.append(name)
        if diameter := document["erythrocyte_diameter_px"]:
            self.diameters.setdefault(group, {})[name] = diameter

    @property
    def odd(self) -> list[tuple[str, float, float]]:
        """Images whose erythrocytes differ in size from their group's: name, diameter and median in px."""
        found = []
        for diameters in self.diameters.values():
            usual = median_low(diameters.values())
            if len(diameters) >= MIN_SIZES:
                found += [
                    (name, diameter, usual)
                    for name, diameter in diameters.items()
                    if not 1 / ODD_SIZE < diameter / usual < ODD_SIZE
                ]
        return found

    @property
    def withheld(self) -> list[tuple[str, Differential]]:
        """Groups, or all, whose percentages are withheld, the largest share without a class first."""
        groups = self.groups or {NO_GROUP: self.whole}
        counts = [(name, group.differential) for name, group in groups.items() if group.classes]
        found = [(name, count) for name, count in counts if count.is_withheld]
        return sorted(found, key=lambda named: (named[1].n / named[1].without_class, named[0]))

    @property
    def ungrouped(self) -> int:
        """Images that are in no group."""
        return self.whole.images - sum(group.images for group in self.groups.values())


def still_needed(count: Differential, target: int) -> int:
    """Return how many classified leukocytes a differential count lacks to the target."""
    return max(target - count.n, 0)


def images_needed(group: GroupCounts, target: int) -> int | None:
    """Return how many more images like the group's reach the target; None where they hold no leukocyte."""
    count = group.differential
    lacking = still_needed(count, target)
    if not lacking:
        return 0
    return math.ceil(lacking * group.done / count.n) if count.n else None


def named_groups(totals: Totals) -> Sequence[tuple[str, GroupCounts]]:
    """Return the groups in the order of their names."""
    return sorted(totals.groups.items())
