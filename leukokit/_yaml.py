"""The one reader of YAML: bounded in size, depth and aliases, with faults reported in one line.

Reading never executes anything: only plain values are made (``yaml.SafeLoader``).
"""

from __future__ import annotations

import difflib
import stat
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from leukokit._text import one_line
from leukokit.errors import ConfigError

SettingsModel = TypeVar("SettingsModel", bound=BaseModel)

MAX_BYTES: Final = 4_000_000
"""Largest file that is read."""
MAX_DEPTH: Final = 50
"""Most mappings and lists inside each other."""
MAX_VALUES: Final = 200_000
"""Most values once every alias is replaced by what it stands for."""
MAX_PLAIN: Final = 4_000
"""Most characters of an unquoted value; converting a longer number takes time that grows with its square."""


def read_yaml(path: Path) -> Any:
    """Return the plain values of a YAML file; None if it is empty.

    Raises:
        ConfigError: not a regular file, unreadable, too large, or not YAML.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the file ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(one_line(f"{path}: cannot read the file ({error})")) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES // 1_000_000} MB, which no configuration is")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not YAML (not UTF-8)") from error
    return parse_yaml(text, str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return a YAML file's mapping of keys to values; an empty one for an empty file.

    Raises:
        ConfigError: as ``read_yaml``, or the file holds something else.
    """
    values = read_yaml(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values")
    return values


def parse_yaml(text: str, source: str) -> Any:
    """Return the plain values of YAML text.

    Args:
        text: the YAML.
        source: what the text is, such as its file; messages start with it.

    Raises:
        ConfigError: not YAML, or nested, aliased or long beyond the limits of this module.
    """
    try:
        _check_size(text)
        return yaml.safe_load(text)
    except _LimitError as error:
        raise ConfigError(f"{source}: {error}") from error
    except Exception as error:  # PyYAML's constructors raise nearly everything on a malformed value
        raise ConfigError(one_line(f"{source}: not YAML ({error})")) from error


def load_model(model: type[SettingsModel], path: Path) -> SettingsModel:
    """Return a pydantic model read from a YAML file.

    Raises:
        ConfigError: as ``read_mapping`` and ``validate``.
    """
    return validate(model, read_mapping(path), str(path))


def validate(model: type[SettingsModel], values: Any, source: str = "") -> SettingsModel:
    """Return plain values as a pydantic model.

    Raises:
        ConfigError: the first fault, in one line: where it is, and for an unknown key the known ones.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        parts = [source, first_fault(error, model)]
        raise ConfigError(one_line(": ".join(part for part in parts if part))) from error


def first_fault(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return the first fault that pydantic found in one line: where, and what is wrong.

    Args:
        error: what pydantic raised.
        model: what was validated; its keys are then named where one is unknown.
    """
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "no such setting" + (_known_keys(model, fault["loc"]) if model else "")
    message = message[:1].lower() + message[1:]
    return one_line(f"{where}: {message}" if where else message)


class _LimitError(Exception):
    """The text goes beyond a limit of this module."""


def _check_size(text: str) -> None:
    """Count depth and values before anything is built; PyYAML's parser keeps no more than a stack."""
    sizes: dict[str, int] = {}
    # Values so far of every open mapping or list, with its anchor; the first stands for the whole text.
    opened: list[tuple[int, str | None]] = [(0, None)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            if len(opened) > MAX_DEPTH:
                raise _LimitError(f"nested deeper than {MAX_DEPTH} levels")
            opened.append((0, event.anchor))
            continue
        size, anchor = 1, None
        if isinstance(event, yaml.CollectionEndEvent):
            inside, anchor = opened.pop()
            size += inside
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == name for _, name in opened):
                raise _LimitError(f"'{event.anchor}' holds itself")
            size = sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            anchor = event.anchor
            if event.style is None and len(event.value) > MAX_PLAIN:
                raise _LimitError(f"an unquoted value of more than {MAX_PLAIN} characters")
        else:
            continue
        if anchor:
            sizes[anchor] = size
        total, name = opened[-1]
        opened[-1] = total + size, name
        if total + size > MAX_VALUES:
            raise _LimitError(f"more than {MAX_VALUES} values, aliases replaced")


def _known_keys(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Name the keys that stand where an unknown one was given, and the nearest to it."""
    types: list[Any] = _models_in(model)
    for part in place[:-1]:
        fields = (one.model_fields[part].annotation for one in types if part in one.model_fields)
        # The number or name of an entry of a list or mapping tells nothing of its type.
        types = [found for annotation in fields for found in _models_in(annotation)] or types
    if not types:
        return ""
    shared = [name for name in types[0].model_fields if all(name in one.model_fields for one in types)]
    every = {name for one in types for name in one.model_fields}
    nearest = difflib.get_close_matches(str(place[-1]), every, 1)
    return f"; there are: {', '.join(shared)}" + (f"; did you mean '{nearest[0]}'?" if nearest else "")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models in a type: in a list, a mapping, a union, or one that stands for another."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        root = annotation.model_fields.get("root")
        return _models_in(root.annotation) if root else [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]
