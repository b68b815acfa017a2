"""What is written of a batch when its images are through, from the manifest alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from leukokit._files import remove_partial_files
from leukokit._text import printable
from leukokit.batch.look import GALLERY
from leukokit.batch.manifest import NAME, Entry, Manifest
from leukokit.batch.outputs.report import MOST_FAILURES, write_report
from leukokit.batch.outputs.tables import FILES, Grouping, Totals, write_run, write_tables
from leukokit.errors import ConfigError

SOME: Final = 3
"""Names of images that one line tells."""


def spare_tables(out: Path, restart: bool) -> None:
    """See that no tables are written over but those of a batch that goes on.

    Raises:
        ConfigError: the folder holds others, and ``restart`` does not say that they may go.
    """
    found = [name for name in FILES if (out / name).exists()]
    if found and not restart and not (out / NAME).exists():
        raise ConfigError(
            f"{printable(out)}: holds {', '.join(found)} and no batch that they belong to; "
            "choose another --out, or write over them with --restart"
        )


def finish(
    manifest: Manifest,
    grouping: Grouping,
    target: int | None,
    parquet: bool,
    told: Mapping[str, Any],
    lacking: Sequence[str] = (),
) -> tuple[Totals, list[str]]:
    """Write tables, ``run.json`` and report into the manifest's folder.

    Args:
        manifest: a batch's; its facts are ``classes``, ``provenance`` and what else ``run.json`` is to say.
        grouping: which images are counted together.
        target: leukocytes that a differential count is to have, if the user said.
        parquet: write ``cells.parquet``, too.
        told: what ``run.json`` says of this run, beside that.
        lacking: what is not in the counts though it was asked for, a line each.

    Returns:
        The totals, and a line for each thing beside ``lacking`` without which they would be misread.

    Raises:
        OutputError: a file cannot be written; the same command goes on.
    """
    facts = manifest.facts()
    classes = facts.pop("classes")
    failures: list[Entry] = []
    hashes: dict[str, str] = {}
    folders = {Path()}
    entries = _watched(manifest.entries(), failures, hashes, folders)
    totals = write_tables(manifest.out, entries, classes, grouping, target, parquet)
    for folder in folders:
        remove_partial_files(manifest.out / folder)
    whole = totals.whole
    known = _to_know(totals, grouping, hashes)
    document = {
        "schema": 1,
        "use": "Research use only; not a medical device.",
        **facts,
        **told,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_over_images": round(totals.seconds, 1),
        "images": {
            "found": whole.images,
            "done": whole.images - whole.failed - whole.waiting,
            "failed": whole.failed,
            "waiting": whole.waiting,
        },
        "attention": [*lacking, *known],
        "counts": dict(whole.kinds),
        "differential": whole.count.to_json() if classes else None,
        "image_sha256": hashes,
    }
    write_run(manifest.out, document)
    write_report(manifest.out, totals, manifest.thumbnails(GALLERY), failures, document, target)
    return totals, known


def _to_know(totals: Totals, grouping: Grouping, hashes: Mapping[str, str]) -> list[str]:
    lines = []
    if waiting := totals.whole.waiting:
        lines.append(f"{_images(waiting)} not looked at yet: the batch was stopped; go on with it")
    if grouping.rule and totals.ungrouped:
        lines.append(f"{_images(totals.ungrouped)} in no group of --group-by {grouping.rule}")
    if totals.noted:
        lines.append(f"{_images(totals.noted)} noted for something, e.g. pages not read: see counts.csv")
    if empty := totals.empty:
        names = ", ".join(map(printable, empty[:SOME])) + (", ..." if len(empty) > SOME else "")
        lines.append(f"{_images(len(empty))} without any cell: {names}")
    if odd := totals.odd:
        name, diameter, usual = odd[0]
        group = "group" if grouping.rule else "batch"
        lines.append(
            f"{_images(len(odd))} of another magnification than others of the {group}, or out of focus: "
            f"red cells of {diameter:.0f} px in {printable(name)}, {usual:.0f} px usually; see counts.csv"
        )
    lines[:0] = [
        f"{printable(name)}: {group.count.warning}"
        for name, group in sorted(totals.groups.items())
        if group.count.warning
    ]
    if not totals.groups and (warning := totals.whole.count.warning):
        lines.insert(0, warning)
    if doubtful := totals.doubtful:
        name, share, leukocytes = doubtful[0]
        many = f"{share:.0%} of {leukocytes:,} leukocytes"
        if totals.groups:
            groups = f"{len(doubtful):,} of {len(totals.groups):,} groups"
            many = f"many leukocytes of {groups}, e.g. {many} in {printable(name)},"
        lines.append(
            f"{many} are unclassified: stain, camera or focus may be new to the classifier; look at the cells"
        )
    first: dict[str, str] = {}
    twice = [
        (name, first[digest]) for name, digest in hashes.items() if first.setdefault(digest, name) != name
    ]
    if twice:
        name, other = (printable(each) for each in twice[0])
        lines.append(
            f"{_images(len(twice))} the same file as another, under another name, and counted again, "
            f"e.g. {name} = {other}"
        )
    return lines


def _images(number: int) -> str:
    return "1 image is" if number == 1 else f"{number:,} images are"


def _watched(
    entries: Iterable[Entry], failures: list[Entry], hashes: dict[str, str], folders: set[Path]
) -> Iterator[Entry]:
    """The entries; put aside on their way: as many failures as the report shows, all hashes, all folders."""
    for entry in entries:
        folders.add(entry.name.parent)
        if entry.document is not None:
            hashes[entry.name.as_posix()] = entry.document["image"]["sha256"]
        elif entry.error and len(failures) < MOST_FAILURES:
            failures.append(entry)
        yield entry
