"""Batches: the cells of many images counted into tables and a report, resumable at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.batch.job import BatchOptions as BatchOptions
    from leukokit.batch.merge import merge_shards as merge_shards
    from leukokit.batch.recounting import recount as recount
    from leukokit.batch.run import run_batch as run_batch
    from leukokit.batch.shard import Shard as Shard
    from leukokit.batch.status import BatchStatus as BatchStatus
    from leukokit.batch.status import batch_status as batch_status
    from leukokit.batch.summary import BatchProgress as BatchProgress
    from leukokit.batch.summary import BatchSummary as BatchSummary

_MODULES = {
    "BatchOptions": "job",
    "BatchProgress": "summary",
    "BatchStatus": "status",
    "BatchSummary": "summary",
    "Shard": "shard",
    "batch_status": "status",
    "merge_shards": "merge",
    "recount": "recounting",
    "run_batch": "run",
}
__all__ = list(_MODULES)

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
