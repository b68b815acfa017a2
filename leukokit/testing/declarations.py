"""Checks of plugins of every kind: declarations, parameters, pickling."""

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

NAME_PATTERN = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
"""Names that need no quotes in a shell or in YAML."""


def declaration_checks(subject: Subject, registry: Registry[Any], seconds: float) -> Iterator[Check]:
    """Checks of the class and of its parameters."""
    plugin = subject.plugin

    def identity() -> None:
        registry.check(plugin, str(getattr(plugin, "name", "")))
        require(
            NAME_PATTERN.fullmatch(plugin.name), f"name {plugin.name!r}: lower case, digits, '-' and '_' only"
        )
        require(plugin.version.strip(), "version is empty")
        require(plugin.summary.strip(), "summary is empty; 'plugins list' and 'plugins info' show it")
        require(plugin.summary.isprintable(), "summary must be one line")

    def described() -> None:
        for key, field in plugin.Params.model_fields.items():
            require((field.description or "").strip(), f"Params.{key} has no description")

    def round_trip() -> None:
        params = subject.params()
        require(type(params) is plugin.Params, f"parse gave {type(params).__name__}, not Params")
        dumped = params.model_dump(mode="json")
        require(_has_json_form(dumped), "Params cannot be written as JSON (an infinite number?)")
        require(plugin.parse(dumped) == params, "Params differ after being written as JSON and read again")
        require(
            plugin.parse(params.model_dump()) == params, "Params differ after being dumped and read again"
        )

    def unknown_refused() -> None:
        values = subject.params().model_dump(mode="json") | {"no_such_parameter": 1}
        message = "an unknown parameter is accepted; do not change 'extra' of PluginParams"
        require(refuses(lambda: plugin.parse(values), (ConfigError,)), message)

    yield subject.bare("declares name, version, summary, api_version, Params", seconds, identity)
    yield subject.bare("parameters are described", seconds, described)
    yield subject.bare("parameters are valid and can be written as JSON", seconds, round_trip)
    yield subject.bare("unknown parameters are refused", seconds, unknown_refused)
    yield subject.bare("class and parameters can be pickled", seconds, lambda: _pickles_class(subject))


def instance_checks(subject: Subject, seconds: float) -> Iterator[Check]:
    """Checks of an instance of any kind except writers."""

    def made() -> None:
        instance = subject.fresh()
        require(isinstance(instance.params, PluginParams), "__init__ does not pass its params on")
        require(
            instance.params == subject.params(), "the instance's parameters differ from those it was given"
        )
        if subject.kind != "graph builder":
            require(getattr(instance, "device", None) == "cpu", "__init__ does not pass its device on")

    yield subject.bare("takes its parameters", seconds, made)
    yield subject.check("provenance is JSON", seconds, provenance)


def provenance(instance: Any) -> None:
    """Check that a plugin's provenance can be written as JSON."""
    stored = instance.provenance()
    require(
        isinstance(stored, dict) and _has_json_form(stored), "provenance() must be a dictionary of plain JSON"
    )
    require({"name", "version", "params"} <= set(stored), "provenance() lacks name, version or params")


def _pickles_class(subject: Subject) -> None:
    pair = (subject.plugin, subject.params())
    require(pickled(pair) == pair, "class and parameters differ after pickling")


def pickled(value: Any) -> Any:
    """The copy that another process gets.

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


def _has_json_form(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False
