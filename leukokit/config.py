"""The configuration of a pipeline: from code, from a YAML file, from ``--set`` on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from leukokit._text import one_line
from leukokit.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

DEFAULT_PLUGINS = {"detector": "yolo", "graph": "knn", "classifier": "hybrid"}
"""The plugin of each section of a configuration that names none."""


NO_CLASSIFIER = "none"
"""What a user says for a pipeline that only detects."""


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
    """What a pipeline is made of."""

    model_config = ConfigDict(extra="forbid")
    standardize: bool = Field(True, description="even out light and stain before detection")
    time_limit: float = Field(
        600, ge=0, description="seconds that a plugin may take over an image; 0 for no limit"
    )
    detector: PluginChoice = Field(default_factory=lambda: PluginChoice(name="yolo"))
    graph: PluginChoice = Field(default_factory=lambda: PluginChoice(name="knn"))
    classifier: PluginChoice | None = Field(
        default_factory=lambda: PluginChoice(name="hybrid"), description="null for none"
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
    """A configuration from a YAML file, then options, then ``KEY=VALUE`` assignments, each over the last.

    Raises:
        ConfigError: unreadable file, unknown key, or a value of the wrong type; one line.
    """
    values = _read_yaml(path) if path else {}
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
    return _validate(PipelineConfig, values, path, assignments)


def load_settings(model: type[Model], path: Path, assignments: Sequence[str] = ()) -> Model:
    """Settings of any pydantic model from a YAML file, then ``KEY=VALUE`` assignments.

    Raises:
        ConfigError: as ``load_config``.
    """
    return _validate(model, _read_yaml(path), path, assignments)


def _validate(
    model: type[Model], values: dict[str, Any], path: Path | None, assignments: Sequence[str]
) -> Model:
    for assignment in assignments:
        _assign(values, assignment)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            said = "no such setting" + _there_is(model, first["loc"])
        parts = [str(path) if path else "", where, said[:1].lower() + said[1:]]
        raise ConfigError(one_line(": ".join(part for part in parts if part))) from error


def _there_is(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """The settings that there are where a wrong one stands, and the nearest to it."""
    types: list[Any] = _models(model)
    for part in place[:-1]:
        fields = (one.model_fields[part].annotation for one in types if part in one.model_fields)
        # The number or name of an entry of a list or mapping says nothing of its type.
        types = [found for annotation in fields for found in _models(annotation)] or types
    shared = [name for name in types[0].model_fields if all(name in one.model_fields for one in types)]
    nearest = difflib.get_close_matches(
        str(place[-1]), {name for one in types for name in one.model_fields}, 1
    )
    return f"; there are: {', '.join(shared)}" + (f"; did you mean '{nearest[0]}'?" if nearest else "")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models in a type: in a list, a mapping, a union, or one that stands for another."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        root = annotation.model_fields.get("root")
        return _models(root.annotation) if root else [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except Exception as error:  # PyYAML's constructors raise nearly everything on a malformed value
        raise ConfigError(one_line(f"{path}: not YAML ({error})")) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values")
    try:
        trusts = _trusts(values)
    except RecursionError as error:
        raise ConfigError(f"{path}: a value that holds itself") from error
    if trusts:
        raise ConfigError(
            f"{path}: 'trust_pickle' is not taken from a file, which may be another's; "
            "say so with --set, or --trust-pickle, where you run it"
        )
    return values


def _trusts(value: Any) -> bool:
    """Whether somewhere in plain values a pickle is to be trusted."""
    if isinstance(value, dict):
        return bool(value.get("trust_pickle")) or any(map(_trusts, value.values()))
    return isinstance(value, list) and any(map(_trusts, value))


def _assign(values: dict[str, Any], assignment: str) -> None:
    import yaml

    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(one_line(f"--set {assignment}: must be KEY=VALUE, e.g. detector.confidence=0.3"))
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # as above
        raise ConfigError(one_line(f"--set {assignment}: the value is not YAML")) from error
    *sections, last = key.split(".")
    target = values
    for section in sections:
        if isinstance(target.get(section), str):
            # 'detector: yolo' is short for 'detector: {name: yolo}'.
            target[section] = {"name": target[section]}
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(one_line(f"--set {assignment}: '{section}' has no settings of its own"))
    target[last] = value
