"""Counting a batch again in seconds, from what its manifest stores: other groups, another threshold."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from leukokit.batch.manifest import Manifest
from leukokit.batch.manifest_files import protected_paths, settings_of
from leukokit.batch.outputs.relabel import Relabelling
from leukokit.batch.outputs.write import OutputOptions, require_classifier, write_outputs
from leukokit.batch.summary import BatchSummary
from leukokit.errors import ConfigError


def recount(
    results: str | Path,
    *,
    review_threshold: float | None = None,
    group_by: str | None = None,
    target: int | None = None,
    parquet: bool = False,
    bom: bool = False,
    command: str | None = None,
) -> BatchSummary:
    """Write the tables and the report of a batch again, without processing an image.

    The batch itself does not change: its own command writes its own tables again. Files that were saved per
    image keep the labels that they have.

    Args:
        results: the batch's folder.
        review_threshold: probability under which a leukocyte is unclassified; None for the batch's own.
        group_by: count images together by ``folder``, or by a regular expression on their path.
        target: leukocytes that each differential count should have.
        parquet: also write ``cells.parquet``; needs pyarrow.
        bom: start CSV files with a byte order mark, by which Excel on Windows knows their encoding.
        command: the command line, for the record.

    Raises:
        ConfigError: the folder holds no batch, or one without a classifier; the threshold is none.
        OutputError: a file cannot be written, or another process works on the folder.

    Examples:
        >>> import tempfile
        >>> from leukokit.batch import recount, run_batch
        >>> summary = run_batch("examples/smear.png", tempfile.mkdtemp())
        >>> recount(summary.out, review_threshold=1).whole.differential.unclassified
        10
    """
    out = Path(os.path.abspath(results))  # noqa: PTH100
    outputs = OutputOptions.checked(group_by, target, parquet, bom)
    settings = settings_of(out)
    is_classified = settings.get("classifier") is not None
    require_classifier(target, is_classified)
    if review_threshold is not None and not (0 <= review_threshold <= 1 and is_classified):
        raise ConfigError(
            f"review_threshold {review_threshold}: "
            + ("must be from 0 to 1" if is_classified else "the batch was run without a classifier")
        )
    with Manifest(out, settings, protected=protected_paths(out)) as manifest:
        facts = manifest.facts()
        relabelling, notes = None, []
        changed: dict[str, object] = {"recounted_by": command}
        if review_threshold is not None:
            relabelling = Relabelling(review_threshold, facts["classes"])
            changed["review_threshold"] = review_threshold
            notes.append(
                f"recounted at a review threshold of {review_threshold:g}, the batch ran at "
                f"{facts['review_threshold']:g}: files saved per image have the labels of the latter"
            )
        options = replace(outputs, relabelling=relabelling, notes=notes)
        return write_outputs(manifest, options, changed, facts.get("not_found", []))
