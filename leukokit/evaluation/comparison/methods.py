"""What is compared: methods, made of any detectors, graph builders and classifiers, and the test fields."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leukokit.config import DEFAULT_PLUGINS, NO_CLASSIFIER, PipelineConfig, PluginChoice
from leukokit.datasets.fields import AnnotatedField, Selection, known_values, read_fields
from leukokit.errors import DataError


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


class MeasuredFields(Selection):
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
    tests: dict[str, list[MeasuredFields]] = Field(min_length=1)
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
        """Name of the method's file of results."""
        letters = "".join(c if c.isalnum() else "-" for c in self.name)
        return f"{letters[:60]}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


def methods_of(comparison: Comparison) -> list[Method]:
    """Every combination once, in the order of the grids."""
    methods: dict[str, Method] = {}
    for grid in comparison.compare:
        for detector, graph, classifier in product(grid.detector, grid.graph, grid.classifier):
            name = " + ".join(_choice_text(choice) for choice in (detector, graph, classifier))
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
        if not any(any(annotated_classes(one)) for one in chosen):
            raise DataError(
                f"{comparison.fields}: test '{name}' holds no field whose leukocytes are all annotated, "
                f"some with their class; {known_values(known)}"
            )
    return tests


def annotated_classes(annotated: AnnotatedField) -> list[str]:
    """(M,) class of every annotated leukocyte, empty where it has none."""
    labels = annotated.labels or [""] * len(annotated.kinds)
    return [label for label, kind in zip(labels, annotated.kinds, strict=True) if kind == "leukocyte"]


def field_key(annotated: AnnotatedField) -> str:
    """Name of a field and of what is annotated in it: a result for other annotations is none for these."""
    annotations = json.dumps([annotated.annotated_kinds, annotated.boxes, annotated.kinds, annotated.labels])
    return f"{annotated.image.as_posix()} {hashlib.sha256(annotations.encode()).hexdigest()[:12]}"


def _choice_text(choice: PluginChoice) -> str:
    params = ", ".join(f"{key}={value}" for key, value in choice.params.items())
    return f"{choice.name} ({params})" if params else choice.name
