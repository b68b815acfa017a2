"""Plugins by name: from installed packages' entry points, from a decorator, or from a single file.

Listing reads metadata only. A plugin is imported when it is asked for, and an import that fails is an
error of that plugin alone.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from leukokit.errors import PluginError

if TYPE_CHECKING:
    from leukokit.classifiers.base import Classifier
    from leukokit.detectors.base import Detector
    from leukokit.graph_builders.base import GraphBuilder
    from leukokit.writers.base import Writer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginRow:
    """A line of ``leukokit plugins list``; ``error`` is empty when nothing is known to be wrong."""

    name: str
    kind: str
    version: str
    package: str
    target: str
    error: str = ""


class Registry(Generic[T]):
    """Plugins of one kind, looked up in one entry-point group.

    Args:
        kind: what a user calls it, e.g. ``detector``.
        group: entry-point group, e.g. ``leukokit.detectors``.
        base: ``module:Class`` that a plugin must derive from; imported only when a plugin is loaded.
    """

    def __init__(self, kind: str, group: str, base: str) -> None:
        self.kind, self.group, self.base = kind, group, base
        self._registered: dict[str, type[T]] = {}

    def register(self, plugin: type[T]) -> type[T]:
        """Class decorator that registers a plugin of a single file or a notebook.

        Raises:
            PluginError: the name is taken, or the class does not keep the contract.
        """
        name = getattr(plugin, "name", "")
        self._check(plugin, str(name))
        if name in self._registered and self._registered[name] is not plugin:
            raise PluginError(f"{self.kind} '{name}' is registered already; give yours another name")
        if any(entry.name == name for entry in self._entries()):
            raise PluginError(f"{self.kind} '{name}' exists in an installed package; give yours another name")
        self._registered[str(name)] = plugin
        return plugin

    def names(self) -> list[str]:
        """All names, sorted; imports nothing."""
        return sorted({entry.name for entry in self._entries()} | set(self._registered))

    def rows(self) -> Iterator[PluginRow]:
        """One row a plugin, sorted by name; imports no plugin."""
        entries = sorted(self._entries(), key=lambda entry: (entry.name, entry.value))
        taken = [entry.name for entry in entries]
        for entry in entries:
            package = entry.dist.name if entry.dist else "?"
            version = entry.dist.version if entry.dist else "?"
            error = ""
            if taken.count(entry.name) > 1:
                error = f"the name is used {taken.count(entry.name)} times; uninstall all packages but one"
            elif not _module_exists(module := entry.value.partition(":")[0].strip()):
                error = f"no module '{module}'; reinstall {package}"
            yield PluginRow(entry.name, self.kind, version, package, entry.value, error)
        for name, plugin in sorted(self._registered.items()):
            version = str(getattr(plugin, "version", "?"))
            yield PluginRow(name, self.kind, version, "(file)", f"{plugin.__module__}:{plugin.__qualname__}")

    def get(self, name: str) -> type[T]:
        """The plugin's class.

        Raises:
            PluginError: unknown name (says what there is, the nearest first), a name used twice, an import
                that fails (with its cause), or a class that does not keep the contract.
        """
        if name in self._registered:
            return self._registered[name]
        entries = [entry for entry in self._entries() if entry.name == name]
        if not entries:
            names = self.names()
            near = difflib.get_close_matches(name, names, n=max(1, len(names)), cutoff=0.4)
            ordered = ", ".join([*near, *(other for other in names if other not in near)]) or "none"
            raise PluginError(f"no {self.kind} is called '{name}'; there are: {ordered}")
        if len(entries) > 1:
            packages = ", ".join(sorted({entry.dist.name if entry.dist else "?" for entry in entries}))
            raise PluginError(f"{self.kind} '{name}' comes from several packages ({packages}); keep one")
        try:
            plugin = entries[0].load()
        except (Exception, SystemExit) as error:
            # Whatever a stranger's module raises at import is that plugin's error, not the toolkit's.
            cause = _cause(error)
            raise PluginError(
                f"{self.kind} '{name}' ({entries[0].value}) does not import: {cause}"
            ) from error
        self._check(plugin, name)
        return plugin  # type: ignore[no-any-return]  # an entry point may hold anything; _check has looked

    def _entries(self) -> list[importlib.metadata.EntryPoint]:
        return list(importlib.metadata.entry_points(group=self.group))

    def _check(self, plugin: Any, name: str) -> None:
        from leukokit.plugin import API_VERSION, PluginParams

        module, _, attribute = self.base.partition(":")
        base = getattr(importlib.import_module(module), attribute)
        candidate: Any = plugin
        said = f"{self.kind} '{name}'"
        if not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise PluginError(f"{said} is not a class derived from {module}.{attribute}")
        for attribute in ("name", "version", "summary"):
            if not isinstance(getattr(plugin, attribute, None), str):
                raise PluginError(f"{said} declares no '{attribute}'")
        if candidate.name != name:
            raise PluginError(f"{said} calls itself '{candidate.name}'; the two names must be one")
        if str(candidate.api_version).split(".")[0] != API_VERSION.split(".")[0]:
            raise PluginError(
                f"{said} is written for plugin API {candidate.api_version}, this is {API_VERSION}; "
                "install a release of it that fits"
            )
        if not (isinstance(candidate.Params, type) and issubclass(candidate.Params, PluginParams)):
            raise PluginError(f"{said}: Params must derive from leukokit.plugin.PluginParams")


detectors: Registry[Detector] = Registry("detector", "leukokit.detectors", "leukokit.detectors.base:Detector")
graph_builders: Registry[GraphBuilder] = Registry(
    "graph builder", "leukokit.graph_builders", "leukokit.graph_builders.base:GraphBuilder"
)
classifiers: Registry[Classifier] = Registry(
    "classifier", "leukokit.classifiers", "leukokit.classifiers.base:Classifier"
)
writers: Registry[Writer] = Registry("writer", "leukokit.writers", "leukokit.writers.base:Writer")
ALL: tuple[Registry[Any], ...] = (detectors, graph_builders, classifiers, writers)


def load_file(path: Path) -> None:
    """Run a user's Python file, so that the plugins it decorates are registered.

    Raises:
        PluginError: no such file, or it raises (with its cause).
    """
    if not path.is_file():
        raise PluginError(f"{path}: no such plugin file")
    name = f"leukokit_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: not a Python file; a plugin file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{path}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _module_exists(module: str) -> bool:
    # Only the top-level package: looking further would import it.
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
