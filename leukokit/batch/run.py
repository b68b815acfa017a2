"""Running a batch: many images to tables and a report, resumable at any moment."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from leukokit.batch.job import BatchOptions, Job, OnProgress
from leukokit.batch.manifest import Manifest
from leukokit.batch.outputs.write import OutputOptions, require_classifier, write_outputs
from leukokit.batch.summary import BatchSummary
from leukokit.config import PipelineConfig

_log = logging.getLogger("leukokit")


def run_batch(
    images: Sequence[str | Path] | str | Path,
    out: str | Path,
    config: PipelineConfig | None = None,
    options: BatchOptions | None = None,
    *,
    group_by: str | None = None,
    target: int | None = None,
    parquet: bool = False,
    bom: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> BatchSummary:
    """Count the cells of many images into a folder; a batch that was stopped resumes where it was.

    >>> import tempfile
    >>> from leukokit.batch import run_batch
    >>> summary = run_batch("examples/smear.png", tempfile.mkdtemp())
    >>> summary.whole.done, summary.whole.kinds["leukocyte"]
    (1, 10)

    Images that fail cost no others: each is a row of ``failures.csv``. Warnings go to the logger
    ``leukokit``.

    Args:
        images: files, folders or patterns such as ``a/**/*.tif``.
        out: folder for tables, report and files; made where it does not exist.
        config: the pipeline; by default leukokit's own plugins.
        options: how the batch is run.
        group_by: count images together by ``folder``, or by a regular expression on their path.
        target: leukocytes that each differential count should have.
        parquet: also write ``cells.parquet``; needs pyarrow.
        bom: start CSV files with a byte order mark, by which Excel on Windows knows their encoding.
        on_progress: called at the start and after each image, from another thread than the caller's.

    Raises:
        ImageError: there is no image.
        ConfigError: a setting is wrong, or ``out`` holds another batch.
        PluginError: a plugin cannot be started.
        OutputError: results cannot be saved; what was done before is.
        KeyboardInterrupt: the batch was stopped; the same call resumes it.
    """
    started = datetime.now(UTC)
    config = config or PipelineConfig()
    outputs = OutputOptions.checked(group_by, target, parquet, bom)
    require_classifier(target, config.classifier is not None)
    named = [images] if isinstance(images, str | Path) else images
    job = Job.prepare(named, Path(out), config, options or BatchOptions())
    outputs.grouping.groups_of([image.relative.as_posix() for image in job.found.images])
    with job.processors() as (processors, description):
        settings = job.settings(description)
        with Manifest(job.out, settings, job.options.restart, job.protected) as manifest:
            job.remember(manifest, description)
            unfinished = job.process(manifest, processors, on_progress)
            seconds = round((datetime.now(UTC) - started).total_seconds(), 1)
            facts = {"shard": settings["shard"], "seconds_of_last_run": seconds}
            summary = write_outputs(manifest, outputs, facts, [*job.found.problems, *unfinished])
    _log.info("done: %d images, %d failed", summary.whole.images, summary.whole.failed)
    return summary
