"""What a reader must know about the counts of a batch, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from leukokit._text import printable
from leukokit.batch.outputs.grouping import Grouping
from leukokit.batch.outputs.totals import Totals, named_groups

MAX_NAMES: Final = 3
"""Most names of images in one sentence."""


def attention_lines(totals: Totals, grouping: Grouping, hashes: Mapping[str, str]) -> list[str]:
    """Return a sentence for each thing without which the counts would be misread.

    Args:
        totals: the counts.
        grouping: which images were counted together.
        hashes: SHA-256 of each image, by name.
    """
    lines = [
        *_withheld(totals),
        *_warnings(totals),
        _waiting(totals),
        _ungrouped(totals, grouping),
        _with_notes(totals),
        _empty(totals),
        _odd_sizes(totals, grouping),
        _repeated(hashes),
    ]
    return [line for line in lines if line]


def count_images(number: int) -> str:
    """Return ``1 image is`` or, say, ``12 images are``."""
    return "1 image is" if number == 1 else f"{number:,} images are"


def _warnings(totals: Totals) -> list[str]:
    """What the differential count of each group, or of all, warns of."""
    named = [(name, group.differential.warning) for name, group in named_groups(totals)]
    if not named:
        return [totals.whole.differential.warning or ""]
    return [f"{printable(name)}: {warning}" for name, warning in named if warning]


def _waiting(totals: Totals) -> str:
    if not (waiting := totals.whole.waiting):
        return ""
    return (
        f"{count_images(waiting)} not processed yet: the batch was stopped; run the same command to continue"
    )


def _ungrouped(totals: Totals, grouping: Grouping) -> str:
    if not (grouping.rule and totals.ungrouped):
        return ""
    return f"{count_images(totals.ungrouped)} in no group of --group-by {printable(grouping.rule)}"


def _with_notes(totals: Totals) -> str:
    if not totals.with_notes:
        return ""
    verb = "1 image has a note" if totals.with_notes == 1 else f"{totals.with_notes:,} images have notes"
    return f"{verb}, e.g. pages that were not read: see counts.csv"


def _empty(totals: Totals) -> str:
    if not (empty := totals.empty):
        return ""
    names = ", ".join(map(printable, empty[:MAX_NAMES])) + (", ..." if len(empty) > MAX_NAMES else "")
    return f"{count_images(len(empty))} without any cell: {names}"


def _odd_sizes(totals: Totals, grouping: Grouping) -> str:
    if not (odd := totals.odd):
        return ""
    name, diameter, usual = odd[0]
    group = "group" if grouping.rule else "batch"
    return (
        f"{count_images(len(odd))} of another magnification than others of the {group}, or out of focus: "
        f"erythrocytes of {diameter:.0f} px in {printable(name)}, usually {usual:.0f} px; see counts.csv"
    )


def _withheld(totals: Totals) -> list[str]:
    """A line for each group whose percentages are withheld, and of the rest how many there are."""
    withheld = totals.withheld
    lines = [
        f"{printable(name)}: {count.withheld_reason}" if totals.groups else count.withheld_reason or ""
        for name, count in withheld[:MAX_NAMES]
    ]
    if len(withheld) > MAX_NAMES:
        rest = len(withheld) - MAX_NAMES
        lines.append(f"percentages of {rest:,} more of {len(totals.groups):,} groups are withheld, too")
    return lines


def _repeated(hashes: Mapping[str, str]) -> str:
    first: dict[str, str] = {}
    twice = [
        (name, first[digest]) for name, digest in hashes.items() if first.setdefault(digest, name) != name
    ]
    if not twice:
        return ""
    name, other = (printable(each) for each in twice[0])
    return (
        f"{count_images(len(twice))} the same file as another, under another name, and counted again, "
        f"e.g. {name} = {other}"
    )
