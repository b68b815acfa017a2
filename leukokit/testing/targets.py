"""The target of ``leukokit plugins check``: a name, a Python file, or the folder of a package."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from leukokit.errors import PluginError, UnknownPluginError, cause_of
from leukokit.registry import ALL, Registry, load_plugin_file


def plugins_of(target: str, kind: str | None = None) -> list[type[Any]]:
    """The classes to check.

    Args:
        target: name of an installed or registered plugin; a ``.py`` file, for all that it registers; or a
            folder with a ``pyproject.toml``, for all its entry points, installed or not.
        kind: a registry's name for it; None for all.

    Raises:
        PluginError: no plugin of that name or in that file or folder, or it cannot be imported.
    """
    path = Path(target)
    if target.endswith(".py"):
        found = load_plugin_file(path)
    elif path.is_dir() and (os.sep in target or not _named(target, None)):
        found = _plugins_in_folder(path)
        if not found:
            raise PluginError(f"{path}: pyproject.toml has no entry points of leukokit's groups")
    else:
        return _by_name(target, kind)
    registries = [registry for registry in ALL if kind in (None, registry.kind)]
    return [plugin for registry in registries for plugin in found if issubclass(plugin, registry.base_class)]


def _named(name: str, kind: str | None) -> list[Registry[Any]]:
    having = [registry for registry in ALL if any(row.name == name for row in registry.rows())]
    return [registry for registry in having if kind in (None, registry.kind)]


def _by_name(name: str, kind: str | None) -> list[type[Any]]:
    having = _named(name, kind)
    if not having:
        known = ", ".join(
            sorted({known for registry in ALL if kind in (None, registry.kind) for known in registry.names()})
        )
        what = kind or "plugin, .py file or folder"
        raise UnknownPluginError(f"no {what} is called '{name}'; there are: {known}")
    return [registry.get(name) for registry in having]


def _plugins_in_folder(folder: Path) -> list[type[Any]]:
    project = folder / "pyproject.toml"
    try:
        with project.open("rb") as stream:
            groups = tomllib.load(stream).get("project", {}).get("entry-points", {})
    except FileNotFoundError as error:
        raise PluginError(
            f"{folder}: no pyproject.toml; name the folder of a package, or a .py file"
        ) from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PluginError(f"{project}: cannot be read ({error})") from error
    source = (folder / "src" if (folder / "src").is_dir() else folder).resolve()
    sys.path.insert(0, str(source))
    return [
        _loaded(registry, name, str(entry), source)
        for registry in ALL
        for name, entry in groups.get(registry.group, {}).items()
    ]


def _loaded(registry: Registry[Any], name: str, entry: str, source: Path) -> type[Any]:
    module_name, _, attribute = entry.partition(":")
    try:
        module = importlib.import_module(module_name.strip())
        plugin = getattr(module, attribute.strip())
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{registry.kind} '{name}' ({entry}) cannot be imported: {cause_of(error)}"
        ) from error
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).resolve().is_relative_to(source):
        raise PluginError(
            f"{registry.kind} '{name}': {module_name} is imported from {file}, not from {source}"
        )
    registry.check(plugin, name)
    checked: type[Any] = plugin
    return checked
