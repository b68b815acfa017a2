"""What a batch and its worker processes tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukokit.config import PipelineConfig
from leukokit.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker process does with images.

    Attributes:
        config: the pipeline's.
        device: where its networks run.
        plugin_files: Python files with plugins, run first.
        writers: names of the writers of a file per image.
        out: folder of their files, which exists.
        workers: threads that read.
        threads: threads that torch, OpenCV and numpy may use.
        memory: bytes that decoded images may take.
        protected: paths below ``out`` that writers may not replace.
        returns_results: whether it sends whole results back, and writes no files.
    """

    config: PipelineConfig
    device: str
    plugin_files: tuple[Path, ...]
    writers: tuple[str, ...]
    out: Path
    workers: int
    threads: int
    memory: int
    protected: frozenset[str] = field(default=frozenset(), repr=False)
    returns_results: bool = False


@dataclass(frozen=True, slots=True)
class PipelineDescription:
    """What decides a pipeline's results, and what a report says of its classifier.

    Attributes:
        provenance: of the pipeline.
        classes: the classifier's; empty without one.
        review_threshold: the classifier's; None without one.
        tests: how its weights did where the right classes were known, from their card.
    """

    provenance: dict[str, Any]
    classes: list[str]
    review_threshold: float | None
    tests: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, pipeline: Pipeline) -> PipelineDescription:
        """Return the description of a pipeline.

        Raises:
            PluginError: a plugin cannot say what decides its results.
        """
        classifier = pipeline.classifier
        if classifier is None:
            return cls(pipeline.provenance, [], None)
        tests = getattr(getattr(classifier, "card", None), "metrics", None)
        return cls(
            pipeline.provenance,
            list(classifier.classes),
            classifier.review_threshold,
            [test for test in tests if isinstance(test, dict)] if isinstance(tests, list) else [],
        )


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a worker process's log."""

    level: int
    message: str


@dataclass(frozen=True, slots=True)
class Busy:
    """The worker process may be silent for so many seconds: it runs the code of a plugin, or reads."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker process does nothing more; as text, because what a plugin raises may not travel."""

    kind: str
    message: str
