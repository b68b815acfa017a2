"""How far the batch in a folder is, without running it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from leukokit.batch.manifest_files import query_manifest, settings_of

_COUNTS = """
SELECT count(*), coalesce(sum(error = ''), 0), coalesce(sum(error != ''), 0)
FROM plan LEFT JOIN images USING (name)
"""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a batch is.

    Attributes:
        out: its folder.
        images: images of the batch, or of the shard.
        done: images with results.
        failed: images that failed; the next run tries them again.
        shard: which part of the images the folder holds, e.g. ``2/8``; None for all.
        failures: the first images that failed, each with its cause.
    """

    out: Path
    images: int
    done: int
    failed: int
    shard: str | None
    failures: tuple[tuple[Path, str], ...] = ()

    @property
    def waiting(self) -> int:
        """Images that were not processed yet."""
        return self.images - self.done - self.failed


def batch_status(out: str | Path, most_failures: int = 20) -> BatchStatus:
    """Return how far the batch in a folder is; another process may be working on it.

    >>> import tempfile
    >>> from leukokit.batch import batch_status, run_batch
    >>> summary = run_batch("examples/smear.png", tempfile.mkdtemp())
    >>> batch_status(summary.out).done
    1

    Args:
        out: the folder.
        most_failures: how many failed images to name.

    Raises:
        ConfigError: the folder holds no batch that this release can read.
    """
    out = Path(out)
    settings = settings_of(out)
    ((images, done, failed),) = query_manifest(out, _COUNTS)
    failures = query_manifest(
        out,
        "SELECT name, error FROM plan JOIN images USING (name) WHERE error != '' "
        f"ORDER BY place LIMIT {int(most_failures)}",
    )
    named = tuple((Path(os.fsdecode(name)), error) for name, error in failures)
    return BatchStatus(out, images, done, failed, settings.get("shard"), named)
