"""Pipelines against each other: any detectors, graph builders and classifiers, on the same photographs.

Every combination answers for every annotated leukocyte of every test field; what it answers is kept, a line
a field, so that a comparison that was stopped goes on, and a further method costs only its own time. A field
is read once, detected once a detector and linked once a builder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from leukokit.cells import Cells
from leukokit.config import DEFAULT_PLUGINS, NO_CLASSIFIER, PipelineConfig, PluginChoice
from leukokit.datasets.fields import AnnotatedField, Selection, read_fields
from leukokit.datasets.photographs import known_values
from leukokit.errors import ConfigError, DataError, LeukokitError, OutputError
from leukokit.evaluation.detection import partners
from leukokit.evaluation.end_to_end import MISSED
from leukokit.pipeline import Pipeline
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE


def _default(section: str) -> Any:
    return Field(default_factory=lambda: [PluginChoice(name=DEFAULT_PLUGINS[section])])


class Grid(BaseModel):
    """Detectors, builders and classifiers that are combined each with each; ``none`` is no classifier.

    A key that is left out is the plugin that a pipeline has by default.
    """

    model_config = ConfigDict(extra="forbid")
    detector: list[PluginChoice] = _default("detector")
    graph: list[PluginChoice] = _default("graph")
    classifier: list[PluginChoice] = _default("classifier")


class Measured(Selection):
    """Fields of one prepared data set that are measured on; all splits where none is named."""

    splits: list[str] = Field([])

    def accepts(self, field: AnnotatedField) -> bool:
        """Whether the field belongs to the selection."""
        wanted = self.model_copy(update={"splits": self.splits or [field.split]})
        return Selection.accepts(wanted, field)


class Comparison(BaseModel):
    """What ``--config`` says.

    ``tests`` are sets of fields by name, ``compare`` grids of methods, ``baseline`` the name of the method
    that the others are tested against, written ``detector + builder + classifier``; the first where none is
    named.
    """

    model_config = ConfigDict(extra="forbid")
    fields: Path
    tests: dict[str, list[Measured]] = Field(min_length=1)
    compare: list[Grid] = Field(min_length=1)
    baseline: str = ""

    @model_validator(mode="after")
    def _has_baseline(self) -> Comparison:
        names = [method.name for method in methods_of(self)]
        self.baseline = self.baseline or (names or [""])[0]
        if self.baseline not in names:
            raise ValueError(f"baseline '{self.baseline}' is none of: {', '.join(names)}")
        return self


@dataclass(frozen=True, slots=True)
class Method:
    """A combination; ``name`` is unique and is made of its plugins and their parameters."""

    name: str
    config: PipelineConfig

    @property
    def key(self) -> str:
        """Name of the method's file of answers."""
        letters = "".join(c if c.isalnum() else "-" for c in self.name)
        return f"{letters[:60]}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


@dataclass(slots=True)
class Answer:
    """What a method says of one field.

    Attributes:
        forced: for every annotated leukocyte its most probable class, ``MISSED`` where it was not found,
            empty without a classifier.
        false: leukocytes found where none is.
        seconds: by stage, ``detect``, ``link`` and ``label``.
        cells: leukocytes found, whatever they met.
        error: why there is no answer.
    """

    forced: list[str] = field(default_factory=list)
    false: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cells: int = 0
    error: str = ""


def methods_of(comparison: Comparison) -> list[Method]:
    """Every combination once, in the order of the grids."""
    methods: dict[str, Method] = {}
    for grid in comparison.compare:
        for detector, graph, classifier in product(grid.detector, grid.graph, grid.classifier):
            name = " + ".join(_shown(choice) for choice in (detector, graph, classifier))
            chosen = None if classifier.name == NO_CLASSIFIER else classifier
            config = PipelineConfig(detector=detector, graph=graph, classifier=chosen)
            methods.setdefault(name, Method(name, config))
    return list(methods.values())


def fields_of(comparison: Comparison) -> dict[str, list[AnnotatedField]]:
    """The fields of each test whose leukocytes are all annotated.

    Raises:
        DataError: the file cannot be read, or a test has none.
    """
    known = list(read_fields(comparison.fields))
    every = [one for one in known if "leukocyte" in one.annotated_kinds]
    tests = {
        name: [one for one in every if any(selection.accepts(one) for selection in selections)]
        for name, selections in comparison.tests.items()
    }
    for name, chosen in tests.items():
        if not any(any(truth_of(one)) for one in chosen):
            raise DataError(
                f"{comparison.fields}: test '{name}' holds no field whose leukocytes are all annotated, "
                f"some with their class; {known_values(known)}"
            )
    return tests


def truth_of(annotated: AnnotatedField) -> list[str]:
    """(M,) class of every annotated leukocyte, empty where it has none."""
    labels = annotated.labels or [""] * len(annotated.kinds)
    return [label for label, kind in zip(labels, annotated.kinds, strict=True) if kind == "leukocyte"]


def answer_of(annotated: AnnotatedField, cells: Cells) -> Answer:
    """What detected (and perhaps annotated) cells say of a field's leukocytes."""
    boxes = annotated.box_array()[annotated.kind_array() == LEUKOCYTE]
    found = cells[cells.kinds == LEUKOCYTE]
    met = partners(found.boxes, found.scores, boxes)
    labels = [""] * len(found)
    if found.labelling is not None:
        names, sure = found.labelling.classes, found.labelling.probabilities.argmax(axis=1)
        labels = [names[number] for number in sure]
    forced = [MISSED] * len(boxes)
    for number, partner in enumerate(met):
        if partner >= 0:
            forced[partner] = labels[number]
    return Answer(forced=forced, false=int((met < 0).sum()), cells=len(found))


class Answers:
    """A method's answers on disk, one JSON line a field, safe at any moment.

    Args:
        path: the file; made where it is not there.
        settings: what decides the answers. A file made with others is refused.

    Raises:
        ConfigError: an earlier run had other settings.  OutputError: it cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path = path
        self.known: dict[str, Answer] = {}
        try:
            if restart:
                path.unlink(missing_ok=True)
            self._read(json.loads(json.dumps(settings, default=str)))
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); choose another --out"
            ) from error

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer.

        Raises:
            OutputError: the disk is full, ...
        """
        if not answer.error:
            self.known[key] = answer
        self._append({"field": key} | {name: getattr(answer, name) for name in Answer.__slots__})

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
                "choose another --out, or forget all answers with --restart"
            )
        for row in rows[1:]:
            # What failed is tried again.
            key = row.pop("field")
            if not row["error"]:
                self.known[key] = Answer(**row)

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


def answer_all(
    methods: Sequence[Method],
    tests: dict[str, list[AnnotatedField]],
    out: Path,
    device: str,
    restart: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Answers], dict[str, Pipeline]]:
    """Every method's answers for every test field, those that are missing made now.

    Args:
        note: told of every field of every detector that is through.

    Returns:
        Answers, and the pipelines that gave them, by the method's name.

    Raises:
        PluginError, ConfigError, OutputError: at once, not at the first field.
    """
    (out / "answers").mkdir(parents=True, exist_ok=True)
    pipelines = {method.name: Pipeline.from_config(method.config, device) for method in methods}
    for group in _by_detector(methods):
        for method in group:
            # One network serves all of them.
            pipelines[method.name].detector = pipelines[group[0].name].detector
    answers = {}
    for method in methods:
        known = pipelines[method.name].provenance
        settings = {key: known[key] for key in ("leukokit", "standardize", "detector", "graph", "classifier")}
        answers[method.name] = Answers(out / "answers" / f"{method.key}.jsonl", settings, restart)
    chosen = {field_key(one): one for fields in tests.values() for one in fields}
    for group in _by_detector(methods):
        for key, annotated in chosen.items():
            lacking = [method for method in group if key not in answers[method.name].known]
            errors: dict[str, None] = {}
            if lacking:
                for name, answer in _answers(annotated, lacking, pipelines):
                    answers[name].add(key, answer)
                    errors |= {answer.error: None} if answer.error else {}
            for error in errors:
                note(error)
            note("")
    return answers, pipelines


def steps_of(methods: Sequence[Method], tests: dict[str, list[AnnotatedField]]) -> int:
    """How often ``answer_all`` calls its ``note`` with an empty line."""
    fields = {field_key(one) for chosen in tests.values() for one in chosen}
    return len(fields) * len(_by_detector(methods))


def field_key(annotated: AnnotatedField) -> str:
    """Name of a field and of what is annotated in it: an answer to other annotations is none to these."""
    said = json.dumps([annotated.annotated_kinds, annotated.boxes, annotated.kinds, annotated.labels])
    return f"{annotated.image.as_posix()} {hashlib.sha256(said.encode()).hexdigest()[:12]}"


def _by_detector(methods: Sequence[Method]) -> list[list[Method]]:
    groups: dict[str, list[Method]] = {}
    for method in methods:
        groups.setdefault(method.config.detector.model_dump_json(), []).append(method)
    return list(groups.values())


def _answers(
    annotated: AnnotatedField, methods: list[Method], pipelines: dict[str, Pipeline]
) -> Iterator[tuple[str, Answer]]:
    """What methods of one detector say of a field; an error of one is that one's own."""
    first = pipelines[methods[0].name]
    try:
        smear = first.read(annotated.image)
        cells, detecting = _timed(lambda: first.detect(smear))
    except LeukokitError as error:
        yield from ((method.name, Answer(error=str(error))) for method in methods)
        return
    for method in methods:
        try:
            yield method.name, _answer(annotated, smear, cells, detecting, pipelines[method.name])
        except LeukokitError as error:
            yield method.name, Answer(error=str(error))


def _answer(
    annotated: AnnotatedField, smear: Smear, cells: Cells, detecting: float, pipeline: Pipeline
) -> Answer:
    graph, linking = _timed(lambda: pipeline.build(cells))
    labelled, labelling = _timed(lambda: pipeline.label(smear, graph))
    answer = answer_of(annotated, labelled)
    answer.seconds = {"detect": detecting, "link": linking, "label": labelling}
    return answer


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    answer = call()
    return answer, round(time.perf_counter() - started, 5)


def _shown(choice: PluginChoice) -> str:
    params = ", ".join(f"{key}={value}" for key, value in choice.params.items())
    return f"{choice.name} ({params})" if params else choice.name


def stored_values(paths: Sequence[Path]) -> int | None:
    """How many numbers weight files hold, without the running statistics of normalisations.

    None where a file is no safetensors, and for no file.
    """
    from safetensors import SafetensorError, safe_open

    if not paths:
        return None
    total = 0
    for path in paths:
        try:
            with safe_open(path, "np") as stored:
                names = [name for name in stored.keys() if "running_" not in name]  # noqa: SIM118
                total += sum(int(np.prod(stored.get_slice(name).get_shape())) for name in names)
        except (OSError, SafetensorError):
            return None
    return total
