"""The configuration of a pipeline: from code, from a YAML file, from ``--set`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leukokit._text import one_line
from leukokit._yaml import SettingsModel, parse_yaml, read_mapping, validate
from leukokit.errors import ConfigError

DEFAULT_PLUGINS = {"detector": "yolo", "graph": "knn", "classifier": "hybrid"}
"""The plugin of each section of a configuration that names none."""

NO_CLASSIFIER = "none"
"""Name of the classifier, on the command line, of a pipeline that only detects."""

LONGEST_TIME_LIMIT = 604_800
"""Largest time limit, in seconds: one week."""

MOST_QUOTED = 200
"""Most characters of an assignment that a message repeats."""


class PluginChoice(BaseModel):
    """A plugin and its parameters; in YAML the parameters stand beside the name."""

    model_config = ConfigDict(extra="forbid")
    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "params" not in value:
            return {
                "name": value.get("name"),
                "params": {k: v for k, v in value.items() if k != "name"},
            }
        return value


class PipelineConfig(BaseModel):
    """What a pipeline is made of, and how its results are written.

    Examples:
        >>> config = PipelineConfig(detector={"name": "yolo", "confidence": 0.5}, classifier=None)
        >>> config.detector.params
        {'confidence': 0.5}
    """

    model_config = ConfigDict(extra="forbid")
    standardize: bool = Field(True, description="correct light and stain before detection")
    engine: str = Field("auto", description="what runs the networks: auto, or the name of an engine")
    time_limit: float = Field(
        600,
        ge=0,
        le=LONGEST_TIME_LIMIT,
        allow_inf_nan=False,
        description="seconds that a plugin may take per image; 0 for no limit",
    )
    detector: PluginChoice = Field(default_factory=lambda: PluginChoice(name="yolo"))
    graph: PluginChoice = Field(default_factory=lambda: PluginChoice(name="knn"))
    classifier: PluginChoice | None = Field(
        default_factory=lambda: PluginChoice(name="hybrid"), description="null for none"
    )
    writers: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="parameters of writers, by the writer's name"
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        # A section without a name sets parameters of the default plugin.
        for key, name in DEFAULT_PLUGINS.items():
            section = values.get(key) if isinstance(values, dict) else None
            if isinstance(section, dict) and "params" not in section:
                values = {**values, key: {"name": name, **section}}
        return values


def load_config(
    path: Path | None,
    assignments: Sequence[str] = (),
    detector: str | None = None,
    graph: str | None = None,
    classifier: str | None = None,
) -> PipelineConfig:
    """Load a configuration: a YAML file, then options, then ``KEY=VALUE`` assignments, each over the last.

    Raises:
        ConfigError: unreadable file, unknown key, or a value of the wrong type; one line.
    """
    values = _read_settings(path) if path else {}
    options = {"detector": detector, "graph": graph, "classifier": classifier}
    for key, chosen in options.items():
        if isinstance(values.get(key), str):
            values[key] = {"name": values[key]}
        if key == "classifier" and chosen == NO_CLASSIFIER:
            values[key] = None
        elif chosen:
            # Parameters of one plugin mean nothing to another.
            previous = values.get(key)
            same = isinstance(previous, dict) and previous.get("name", DEFAULT_PLUGINS[key]) == chosen
            values[key] = previous if same else {"name": chosen}
    for assignment in assignments:
        _assign(values, assignment)
    return validate(PipelineConfig, values, str(path or ""))


def load_settings(model: type[SettingsModel], path: Path, assignments: Sequence[str] = ()) -> SettingsModel:
    """Load settings of any pydantic model: a YAML file, then ``KEY=VALUE`` assignments.

    Raises:
        ConfigError: as ``load_config``.
    """
    values = _read_settings(path)
    for assignment in assignments:
        _assign(values, assignment)
    return validate(model, values, str(path))


def _read_settings(path: Path) -> dict[str, Any]:
    values = read_mapping(path)
    if _trusts_pickle(values):
        raise ConfigError(
            f"{path}: 'trust_pickle' cannot be set in a file, which may be another person's; "
            "set it where you run it, with --set or --trust-pickle"
        )
    return values


def _trusts_pickle(value: Any) -> bool:
    """Return whether a pickle is to be trusted anywhere in plain values."""
    if isinstance(value, dict):
        return bool(value.get("trust_pickle")) or any(map(_trusts_pickle, value.values()))
    return isinstance(value, list) and any(map(_trusts_pickle, value))


def _assign(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(one_line(f"--set {assignment}: must be KEY=VALUE, e.g. detector.confidence=0.3"))
    value = parse_yaml(text, one_line(f"--set {assignment}")[:MOST_QUOTED])
    *sections, last = key.split(".")
    target = values
    for section in sections:
        if isinstance(target.get(section), str):
            # 'detector: yolo' is short for 'detector: {name: yolo}'.
            target[section] = {"name": target[section]}
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(one_line(f"--set {assignment}: '{section}' has no settings"))
    target[last] = value
