"""What plugins of all kinds are checked for: their declarations, their parameters, and that they pickle."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from typing import Any

from leukokit.errors import ConfigError
from leukokit.plugin import PluginParams
from leukokit.registry import Registry
from leukokit.testing.check import Check, Subject, refuses, require

NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
"""Names that need no quotes in a shell, nor in YAML."""


def declaration_checks(subject: Subject, registry: Registry[Any], seconds: float) -> Iterator[Check]:
    """Checks of the class and of its parameters."""
    plugin = subject.plugin

    def identity() -> None:
        registry.check(plugin, str(getattr(plugin, "name", "")))
        require(NAME.fullmatch(plugin.name), f"name {plugin.name!r}: lower case, digits, '-' and '_' only")
        require(plugin.version.strip(), "version is empty")
        require(plugin.summary.strip(), "summary is empty; it is the plugin's line in the help")
        require(plugin.summary.isprintable(), "summary must be one line")

    def described() -> None:
        for key, field in plugin.Params.model_fields.items():
            require((field.description or "").strip(), f"Params.{key} has no description")

    def round_trip() -> None:
        params = subject.params()
        require(type(params) is plugin.Params, f"parse gave {type(params).__name__}, not Params")
        dumped = params.model_dump(mode="json")
        require(_is_json(dumped), "Params cannot be written as JSON (an infinite number?)")
        require(plugin.parse(dumped) == params, "Params written as JSON and read again differ")
        require(plugin.parse(params.model_dump()) == params, "Params dumped and read again differ")

    def unknown_refused() -> None:
        values = subject.params().model_dump(mode="json") | {"no_such_parameter": 1}
        message = "an unknown parameter is accepted; do not change 'extra' of PluginParams"
        require(refuses(lambda: plugin.parse(values), (ConfigError,)), message)

    yield subject.bare("declares name, version, summary, api_version, Params", seconds, identity)
    yield subject.bare("parameters are described", seconds, described)
    yield subject.bare("parameters are valid and survive JSON", seconds, round_trip)
    yield subject.bare("unknown parameters are refused", seconds, unknown_refused)
    yield subject.bare("class and parameters pickle", seconds, lambda: _pickles_class(subject))


def instance_checks(subject: Subject, seconds: float) -> Iterator[Check]:
    """Checks of an instance, of whatever kind but a writer."""

    def made() -> None:
        instance = subject.fresh()
        require(isinstance(instance.params, PluginParams), "__init__ does not pass its params on")
        require(instance.params == subject.params(), "the instance has other parameters than it was given")
        if subject.kind != "graph builder":
            require(getattr(instance, "device", None) == "cpu", "__init__ does not pass its device on")

    yield subject.bare("is made of its parameters", seconds, made)
    yield subject.check("provenance is JSON", seconds, provenance)


def provenance(instance: Any) -> None:
    """Whether what a result records of a plugin can be written."""
    stored = instance.provenance()
    require(isinstance(stored, dict) and _is_json(stored), "provenance() must be a dictionary of plain JSON")
    require({"name", "version", "params"} <= set(stored), "provenance() lacks name, version or params")


def _pickles_class(subject: Subject) -> None:
    pair = (subject.plugin, subject.params())
    require(pickled(pair) == pair, "class and parameters differ after pickling")


def pickled(value: Any) -> Any:
    """The copy that another process would get.

    Raises:
        AssertionError: it cannot be pickled.
    """
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception as error:
        # pickle raises nearly everything.
        raise AssertionError(
            f"cannot be pickled ({error}); define classes at the top of a module, load networks on first use"
        ) from error


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False
