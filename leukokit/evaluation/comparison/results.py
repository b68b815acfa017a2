"""What each method made of each test field, kept on disk so that a stopped comparison resumes.

A further method costs only its own time. A field is read once, its cells are detected once per detector and
linked once per graph builder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukokit.cells import Cells
from leukokit.datasets.fields import AnnotatedField
from leukokit.errors import ConfigError, LeukokitError, OutputError
from leukokit.evaluation.comparison.methods import Method, field_key
from leukokit.evaluation.end_to_end import MISSED
from leukokit.metrics.matching import partners
from leukokit.pipeline import Pipeline
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE


@dataclass(slots=True)
class FieldResult:
    """What a method made of one field.

    Attributes:
        forced: for every annotated leukocyte its most probable class, ``MISSED`` where it was not found,
            empty without a classifier.
        false: leukocytes found where none is.
        seconds: by stage, ``detect``, ``link`` and ``label``.
        cells: leukocytes found, whatever they met.
        error: why there is no result.
    """

    forced: list[str] = field(default_factory=list)
    false: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cells: int = 0
    error: str = ""


class ResultStore:
    """A method's results on disk, one JSON line per field, safe at any moment.

    Args:
        path: the file; made where it is not there.
        settings: what decides the results. A file made with others is refused.

    Raises:
        ConfigError: an earlier run had other settings.  OutputError: it cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path = path
        self.known: dict[str, FieldResult] = {}
        try:
            if restart:
                path.unlink(missing_ok=True)
            self._read(json.loads(json.dumps(settings, default=str)))
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); choose another --out"
            ) from error

    def add(self, key: str, result: FieldResult) -> None:
        """Keep a result.

        Raises:
            OutputError: it cannot be written.
        """
        if not result.error:
            self.known[key] = result
        self._append({"field": key} | {name: getattr(result, name) for name in FieldResult.__slots__})

    def _read(self, settings: dict[str, Any]) -> None:
        if not self.path.exists():
            self._append({"settings": settings})
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if whole != lines:
            # The run was stopped while it wrote the last line.
            partial = self.path.with_name(self.path.name + ".part")
            partial.write_text("".join(whole), encoding="utf-8")
            partial.replace(self.path)
        rows = [json.loads(line) for line in whole]
        if not rows:
            self._append({"settings": settings})
            return
        if rows[0]["settings"] != settings:
            raise ConfigError(
                f"{self.path}: was made with other weights, parameters or versions; "
                "choose another --out, or discard all results with --restart"
            )
        for row in rows[1:]:
            # What failed is tried again.
            key = row.pop("field")
            if not row["error"]:
                self.known[key] = FieldResult(**row)

    def _append(self, row: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); free space, then run it again"
            ) from error


def run_methods(
    methods: Sequence[Method],
    tests: dict[str, list[AnnotatedField]],
    out: Path,
    device: str,
    restart: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
    report_failure: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, ResultStore], dict[str, Pipeline]]:
    """Return every method's results for every test field; those that are missing are made now.

    Args:
        methods: what is compared.
        tests: fields by the name of their test.
        out: folder of the results.
        device: as of a pipeline.
        restart: discard what ``out`` holds.
        progress: called with the steps done and the steps in all, one per field and detector.
        report_failure: called with each error that left a method without a result for a field.

    Returns:
        The results, and the pipelines that gave them, by the method's name.

    Raises:
        PluginError, ConfigError, OutputError: at once, not at the first field.
    """
    (out / "results").mkdir(parents=True, exist_ok=True)
    pipelines = {method.name: Pipeline.from_config(method.config, device) for method in methods}
    for group in _by_detector(methods):
        for method in group:
            # One network serves all of them.
            pipelines[method.name].detector = pipelines[group[0].name].detector
    results = {}
    for method in methods:
        known = pipelines[method.name].provenance
        settings = {key: known[key] for key in ("leukokit", "standardize", "detector", "graph", "classifier")}
        results[method.name] = ResultStore(out / "results" / f"{method.key}.jsonl", settings, restart)
    chosen = {field_key(one): one for fields in tests.values() for one in fields}
    groups = _by_detector(methods)
    done, total = 0, len(groups) * len(chosen)
    for group in groups:
        for key, annotated in chosen.items():
            lacking = [method for method in group if key not in results[method.name].known]
            errors: dict[str, None] = {}
            if lacking:
                for name, result in _results_of_methods(annotated, lacking, pipelines):
                    results[name].add(key, result)
                    errors |= {result.error: None} if result.error else {}
            for error in errors:
                report_failure(error)
            done += 1
            progress(done, total)
    return results, pipelines


def result_of(annotated: AnnotatedField, cells: Cells) -> FieldResult:
    """Return what detected, and perhaps labelled, cells make of a field's leukocytes."""
    boxes = annotated.box_array()[annotated.kind_array() == LEUKOCYTE]
    found = cells[cells.kinds == LEUKOCYTE]
    met = partners(found.boxes, found.scores, boxes)
    labels = [""] * len(found)
    if found.labelling is not None:
        names, best = found.labelling.classes, found.labelling.probabilities.argmax(axis=1)
        labels = [names[number] for number in best]
    forced = [MISSED] * len(boxes)
    for number, partner in enumerate(met):
        if partner >= 0:
            forced[partner] = labels[number]
    return FieldResult(forced=forced, false=int((met < 0).sum()), cells=len(found))


def _by_detector(methods: Sequence[Method]) -> list[list[Method]]:
    groups: dict[str, list[Method]] = {}
    for method in methods:
        groups.setdefault(method.config.detector.model_dump_json(), []).append(method)
    return list(groups.values())


def _results_of_methods(
    annotated: AnnotatedField, methods: list[Method], pipelines: dict[str, Pipeline]
) -> Iterator[tuple[str, FieldResult]]:
    """What methods of one detector make of a field; an error of one is not the others'."""
    first = pipelines[methods[0].name]
    try:
        smear = first.read(annotated.image)
        cells, detecting = _timed(lambda: first.detect(smear))
    except LeukokitError as error:
        yield from ((method.name, FieldResult(error=str(error))) for method in methods)
        return
    for method in methods:
        try:
            yield method.name, _result(annotated, smear, cells, detecting, pipelines[method.name])
        except LeukokitError as error:
            yield method.name, FieldResult(error=str(error))


def _result(
    annotated: AnnotatedField, smear: Smear, cells: Cells, detecting: float, pipeline: Pipeline
) -> FieldResult:
    graph, linking = _timed(lambda: pipeline.build(cells))
    labelled, labelling = _timed(lambda: pipeline.label(smear, graph))
    result = result_of(annotated, labelled)
    result.seconds = {"detect": detecting, "link": linking, "label": labelling}
    return result


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call()
    return result, round(time.perf_counter() - started, 5)
