"""What a batch returns, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leukokit.batch.outputs.totals import GroupCounts
from leukokit.differential import Differential


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        total: images of the batch, or of the shard.
        done: images with results, those of earlier runs included.
        done_before: images that an earlier run did.
        failed: images that failed in this run.
        image: the file that was just processed; None at the start.
        error: why that image has no results; empty where it has.
    """

    total: int
    done: int
    done_before: int
    failed: int = 0
    image: Path | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What became of a batch.

    Attributes:
        out: its folder.
        whole: counts over all images.
        groups: counts of each group, by name.
        failures: the first images without results, each with its cause; all are in ``failures.csv``.
        problems: inputs, shards and files that are missing, a line each: the counts are incomplete.
        attention: what a reader must know about the counts, a line each; the problems come first.
        files: tables and report that were written.
    """

    out: Path
    whole: GroupCounts
    groups: Mapping[str, GroupCounts] = field(default_factory=dict)
    failures: Sequence[tuple[Path, str]] = ()
    problems: Sequence[str] = ()
    attention: Sequence[str] = ()
    files: Sequence[Path] = ()

    @property
    def differential(self) -> Differential | None:
        """The differential count over all images; None without a classifier."""
        return self.whole.differential if self.whole.classes else None

    @property
    def is_complete(self) -> bool:
        """Whether every input has its results and every promised file exists."""
        return not (self.whole.failed or self.whole.waiting or self.problems)

    @property
    def is_failure(self) -> bool:
        """Whether every image failed."""
        return bool(self.whole.images) and self.whole.failed == self.whole.images
