"""What is written of a batch when its images are through, from the manifest alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from leukokit.batch.manifest import Entry, Manifest
from leukokit.batch.report import MOST_FAILURES, write_report
from leukokit.batch.run import GALLERY
from leukokit.batch.tables import Grouping, Totals, write_run, write_tables


def finish(
    manifest: Manifest, grouping: Grouping, target: int | None, parquet: bool, told: Mapping[str, Any]
) -> Totals:
    """Write tables, ``run.json`` and report into the manifest's folder.

    Args:
        manifest: a batch's; its facts are ``classes``, ``provenance`` and what else ``run.json`` is to say.
        grouping: which images are counted together.
        target: leukocytes that a differential count is to have, if the user said.
        parquet: write ``cells.parquet``, too.
        told: what ``run.json`` says of this run, beside that.

    Raises:
        OutputError: a file cannot be written; the same command goes on.
    """
    facts = manifest.facts()
    classes = facts.pop("classes")
    failures: list[Entry] = []
    hashes: dict[str, str] = {}
    entries = _watched(manifest.entries(), failures, hashes)
    totals = write_tables(manifest.out, entries, classes, grouping, target, parquet)
    whole = totals.whole
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
        "counts": dict(whole.kinds),
        "differential": whole.count.to_json() if classes else None,
        "image_sha256": hashes,
    }
    write_run(manifest.out, document)
    write_report(manifest.out, totals, manifest.thumbnails(GALLERY), failures, document, target)
    return totals


def _watched(entries: Iterable[Entry], failures: list[Entry], hashes: dict[str, str]) -> Iterator[Entry]:
    """The entries; on their way, as many failures as the report shows are put aside, and all hashes."""
    for entry in entries:
        if entry.document is not None:
            hashes[entry.name.as_posix()] = entry.document["image"]["sha256"]
        elif entry.error and len(failures) < MOST_FAILURES:
            failures.append(entry)
        yield entry
