"""Making plugins, and what leukokit checks of them: class names, detections, provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from leukokit._guard import ContractError, translate
from leukokit._text import printable
from leukokit.cells import Cells
from leukokit.classifiers.base import Classifier
from leukokit.config import PluginChoice
from leukokit.errors import LeukokitError, PluginError, cause_of
from leukokit.plugin import Plugin
from leukokit.registry import Registry
from leukokit.smear import Smear
from leukokit.taxonomy import MAX_CLASS_NAME, is_class_name

P = TypeVar("P", bound=Plugin)


def check_classes(classifier: Classifier) -> None:
    """Refuse class names that no table or terminal can show.

    Raises:
        PluginError: there are none, or they are not text, or two are the same.
    """
    subject = f"classifier '{classifier.name}'"
    try:
        classes = tuple(classifier.classes)
    except (LeukokitError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise translate(subject, error) from error
    wrong = [name for name in classes if type(name) is not str or not is_class_name(name)]
    if wrong:
        raise PluginError(
            f"{subject}: {printable(repr(wrong[0]))[:MAX_CLASS_NAME]} is not a class name; "
            f"use printable text of at most {MAX_CLASS_NAME} characters"
        )
    if not classes or len({name.casefold() for name in classes}) < len(classes):
        raise PluginError(f"{subject}: must have classes, each with its own name")


def provenance_of(kind: str, plugin: Plugin) -> dict[str, Any]:
    """Return what a plugin records of itself.

    Raises:
        PluginError: it fails, or JSON cannot hold it.
    """
    subject = f"{kind} '{plugin.name}'"
    try:
        stated = plugin.provenance()
        json.dumps(stated, allow_nan=False).encode()
    except (LeukokitError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(f"{subject} has no provenance that JSON can hold ({cause_of(error)})") from error
    if not isinstance(stated, dict):
        raise PluginError(f"{subject}: provenance() must return a dict, not {type(stated).__name__}")
    return stated


def check_detections(smears: Sequence[Smear], answer: Any) -> list[Cells]:
    """Return a detector's answer where it is one ``Cells`` for each smear.

    Raises:
        ContractError: it is not.
    """
    if (
        not isinstance(answer, list)
        or len(answer) != len(smears)
        or not all(isinstance(cells, Cells) for cells in answer)
    ):
        raise ContractError("must return one Cells for each smear")
    if not all(type(note) is str for cells in answer for note in cells.notes):
        raise ContractError("must return notes that are text")
    return list(answer)


def choice_of(plugin: Plugin | str) -> PluginChoice:
    """Return the configuration of a plugin that is given by its name, or as an object."""
    if isinstance(plugin, str):
        return PluginChoice(name=plugin)
    return PluginChoice(name=plugin.name, params=plugin.params.model_dump(mode="json"))


def make_plugin(registry: Registry[P], choice: PluginChoice, plugin: Any, *device: str) -> P:
    """Return the plugin given, or make the one that is named.

    Raises:
        PluginError: there is none of that name, or it fails.
        ConfigError: a parameter is wrong.
    """
    if plugin is not None:
        registry.check(type(plugin), plugin.name)
        checked: P = plugin
        return checked
    made = registry.get(choice.name)
    params = made.parse(choice.params)
    try:
        return made(params, *device)
    except (LeukokitError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(f"{registry.kind} '{choice.name}' cannot be started ({cause_of(error)})") from error
