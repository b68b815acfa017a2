"""Writing all that a batch writes over its images, and checking that nothing is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

from leukokit._files import flush_to_disk, remove_partial_files
from leukokit._text import printable
from leukokit.batch.decisions import verdicts_of
from leukokit.batch.manifest import Manifest
from leukokit.batch.manifest_files import MANIFEST_NAME
from leukokit.batch.outputs.attention import MAX_NAMES, attention_lines
from leukokit.batch.outputs.grouping import Grouping
from leukokit.batch.outputs.overlaps import Overlaps
from leukokit.batch.outputs.parquet import require_pyarrow
from leukokit.batch.outputs.relabel import Relabelling
from leukokit.batch.outputs.report import MAX_FAILURES, write_report
from leukokit.batch.outputs.reviewed import ReviewedLabels
from leukokit.batch.outputs.tables import FILES, PARQUET, write_run, write_tables
from leukokit.batch.outputs.totals import Totals
from leukokit.batch.processing import GALLERY
from leukokit.batch.records import Entry
from leukokit.batch.summary import BatchSummary
from leukokit.errors import ConfigError

OUTPUT_CHOICE: Final = "output_choice"
"""Fact of a manifest: how its results were summed up last."""
USE: Final = "Research use only; not a medical device."


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How results are summed up; another choice needs no image to be processed again.

    Attributes:
        grouping: which images are counted together.
        target: leukocytes that a differential count should have, if the user said.
        parquet: also write ``cells.parquet``.
        bom: start CSV files with a byte order mark, by which Excel on Windows knows their encoding.
        relabelling: labels at another review threshold; None for those of the batch.
        notes: what a reader must know about this choice, a line each.
    """

    grouping: Grouping = field(default_factory=lambda: Grouping(None))
    target: int | None = None
    parquet: bool = False
    bom: bool = False
    relabelling: Relabelling | None = None
    notes: Sequence[str] = ()

    @classmethod
    def checked(
        cls, group_by: str | None = None, target: int | None = None, parquet: bool = False, bom: bool = False
    ) -> Self:
        """Return the options that a user's arguments mean.

        Raises:
            ConfigError: not a regular expression, or pyarrow is missing.
        """
        if parquet:
            require_pyarrow()
        return cls(Grouping(group_by), target, parquet, bom)

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments of ``recount`` that make the same choice again."""
        threshold = None if self.relabelling is None else self.relabelling.threshold
        return {
            "group_by": self.grouping.rule,
            "target": self.target,
            "parquet": self.parquet,
            "bom": self.bom,
            "review_threshold": threshold,
        }


@dataclass(slots=True)
class _Collected:
    """What is set aside of the entries on their way to the tables."""

    failures: list[Entry] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=lambda: {Path()})


def require_classifier(target: int | None, is_classified: bool) -> None:
    """Refuse a target of classified leukocytes where no classifier gives any.

    Raises:
        ConfigError: there is a target and no classifier.
    """
    if target is not None and not is_classified:
        raise ConfigError(f"--target {target}: counts leukocytes with a class; --classifier none gives none")


def require_free_tables(out: Path, restart: bool) -> None:
    """Make sure that no tables are replaced but those of a batch that continues.

    Raises:
        ConfigError: the folder holds others, and ``restart`` does not say that they may go.
    """
    found = [name for name in FILES if (out / name).exists()]
    if found and not restart and not (out / MANIFEST_NAME).exists():
        raise ConfigError(
            f"{printable(out)}: holds {', '.join(found)} and no batch that they belong to; "
            "choose another --out, or replace them with --restart"
        )


def remove_tables(out: Path) -> None:
    """Remove the tables of an earlier run, which a run that is stopped would contradict."""
    for name in (*FILES, PARQUET):
        (out / name).unlink(missing_ok=True)


def write_outputs(
    manifest: Manifest, options: OutputOptions, facts: Mapping[str, Any], problems: Sequence[str] = ()
) -> BatchSummary:
    """Write tables, ``run.json`` and report into the manifest's folder.

    Args:
        manifest: a batch's; its facts are ``classes``, ``provenance`` and what else ``run.json`` states.
        options: how results are summed up.
        facts: what ``run.json`` states of this run, beside that.
        problems: what is not in the counts though it was asked for, a line each.

    Raises:
        ConfigError: the grouping's regular expression takes too long.
        OutputError: a file cannot be written, or the manifest is gone; the same command tries again.
    """
    manifest.require_present()
    remembered = {key: value for key, value in manifest.facts().items() if key != OUTPUT_CHOICE}
    classes, notes = remembered.pop("classes"), remembered.pop("input_notes", [])
    collected = _Collected()
    names = [name.as_posix() for name in manifest.names()]
    verdicts = verdicts_of(manifest.out)
    review = ReviewedLabels(verdicts, classes) if verdicts else None
    stored, thumbnails = manifest.entries(), manifest.thumbnails(GALLERY)
    # In this order: a person's label stands whatever the threshold is.
    for labels in (options.relabelling, review):
        if labels is not None:
            stored, thumbnails = labels.entries(stored), labels.thumbnails(thumbnails)
    overlaps = Overlaps()
    groups = options.grouping.groups_of(names)
    entries = overlaps.watch(zip(_collect(stored, collected), groups, strict=True))
    totals = write_tables(
        manifest.out, entries, classes, options.target, options.parquet, review, bom=options.bom
    )
    for folder in collected.folders:
        remove_partial_files(manifest.out / folder)
    problems = [*problems, *_missing(manifest)]
    lines = attention_lines(totals, options.grouping, collected.hashes)
    reviewed = [] if review is None else [review.note]
    twice = [overlaps.attention] if overlaps.attention else []
    attention = [*problems, *reviewed, *options.notes, *notes, *twice, *lines]
    is_classified = bool(classes if review is None else review.classes)
    document = _run_document(totals, {**remembered, **facts}, is_classified, attention, collected.hashes)
    write_run(manifest.out, document)
    write_report(manifest.out, totals, thumbnails, collected.failures, document, options.target)
    files = [manifest.out / name for name in (*FILES, *([PARQUET] if options.parquet else []))]
    flush_to_disk(files)
    manifest.require_present()
    manifest.remember({OUTPUT_CHOICE: options.choice})
    return BatchSummary(
        out=manifest.out,
        whole=totals.whole,
        groups=totals.groups,
        failures=[(entry.name, entry.error) for entry in collected.failures],
        problems=problems,
        attention=attention,
        files=files,
    )


def _run_document(
    totals: Totals,
    facts: Mapping[str, Any],
    is_classified: bool,
    attention: Sequence[str],
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    whole = totals.whole
    return {
        "schema": 1,
        "use": USE,
        **facts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_over_images": round(totals.seconds, 1),
        "images": {
            "found": whole.images,
            "done": whole.done,
            "failed": whole.failed,
            "waiting": whole.waiting,
        },
        "attention": list(attention),
        "counts": dict(whole.kinds),
        "differential": whole.differential.to_json() if is_classified else None,
        "image_sha256": dict(hashes),
    }


def _missing(manifest: Manifest) -> list[str]:
    """A sentence about saved files that are gone; empty where all are there."""
    first = list(islice(manifest.missing_files(), MAX_NAMES + 1))
    if not first:
        return []
    names = ", ".join(printable(file.path) for file in first[:MAX_NAMES])
    more = ", ..." if len(first) > MAX_NAMES else ""
    return [f"saved files are missing or changed: {names}{more}; run the same command to save them again"]


def _collect(entries: Iterable[Entry], collected: _Collected) -> Iterator[Entry]:
    """Yield the entries; set aside as many failures as the report shows, all hashes, all folders."""
    for entry in entries:
        collected.folders.add(entry.name.parent)
        if entry.document is not None:
            collected.hashes[entry.name.as_posix()] = entry.document["image"]["sha256"]
        elif entry.error and len(collected.failures) < MAX_FAILURES:
            collected.failures.append(entry)
        yield entry
