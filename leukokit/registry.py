"""Plugins by name: from installed packages' entry points, from a decorator, or from a single file.

Listing reads metadata only. A plugin is imported when it is asked for, and an import that fails is an
error of that plugin alone. ``LEUKOKIT_DISABLE_PLUGINS`` switches plugins off: names or packages, separated by
commas, or ``all`` for every package but leukokit itself.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from leukokit.errors import PluginError, UnknownPluginError, cause_of

if TYPE_CHECKING:
    from leukokit.classifiers.base import Classifier
    from leukokit.detectors.base import Detector
    from leukokit.engines.base import Engine
    from leukokit.graph_builders.base import GraphBuilder
    from leukokit.writers.base import Writer

T = TypeVar("T")

DISABLE: Final = "LEUKOKIT_DISABLE_PLUGINS"
"""Environment variable that names the plugins and packages to leave alone."""
FILE_MODULE: Final = "leukokit_plugin_"
"""What the name of the module of a plugin file starts with."""
FROM_FILE: Final = "(file)"
"""Stands for the package of a plugin that was registered by the decorator."""
OWN: Final = "leukokit"
"""The package whose plugins nobody else can replace or shadow."""


@dataclass(frozen=True, slots=True)
class PluginRow:
    """A line of ``leukokit plugins list``.

    ``version`` is that of the package, because a plugin's own is known only once it is imported; ``error`` is
    empty when nothing is known to be wrong; ``disabled`` is whether the environment says so.
    """

    name: str
    kind: str
    version: str
    package: str
    target: str
    error: str = ""
    disabled: bool = False

    @property
    def origin(self) -> str:
        """Its package with the package's version; of a plugin file, that it is one."""
        return self.package if self.package == FROM_FILE else f"{self.package} {self.version}"

    @property
    def status(self) -> str:
        """``disabled``, the error, or ``ok``."""
        return "disabled" if self.disabled else self.error or "ok"


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

    @property
    def base_class(self) -> type[Any]:
        """The class that a plugin must derive from; importing it may take a while."""
        module, _, attribute = self.base.partition(":")
        found: type[Any] = getattr(importlib.import_module(module), attribute)
        return found

    def register(self, plugin: type[T]) -> type[T]:
        """Class decorator that registers a plugin of a single file or a notebook.

        Raises:
            PluginError: the name is taken, or the class does not keep the contract.
        """
        name = getattr(plugin, "name", "")
        self.check(plugin, str(name))
        if name in self._registered and not _is_same_class(self._registered[name], plugin):
            raise PluginError(f"{self.kind} '{name}' is registered already; give yours another name")
        if any(entry.name == name for entry in self._enabled()):
            raise PluginError(f"{self.kind} '{name}' exists in an installed package; give yours another name")
        self._registered[str(name)] = plugin
        return plugin

    def registered(self) -> list[type[T]]:
        """Plugins that came by the decorator, sorted by name."""
        return [self._registered[name] for name in sorted(self._registered)]

    def names(self) -> list[str]:
        """All names that can be asked for, sorted; imports nothing."""
        return sorted({row.name for row in self.rows() if not row.disabled})

    def rows(self) -> Iterator[PluginRow]:
        """One row a plugin, sorted by name; imports no plugin."""
        disabled = _disabled()
        enabled = [entry.name for entry in self._enabled()]
        own = {entry.name for entry in self._enabled() if _package(entry) == OWN}
        for entry in sorted(self._entries(), key=lambda entry: (entry.name, entry.value)):
            package = _package(entry)
            version = entry.dist.version if entry.dist else "?"
            off = _is_off(entry.name, package, disabled)
            error = ""
            if off:
                pass
            elif entry.name in own:
                error = "" if package == OWN else f"the name is {OWN}'s own; rename it"
            elif (times := enabled.count(entry.name)) > 1:
                error = f"the name is used {times} times; uninstall all packages but one"
            module = entry.value.partition(":")[0].strip()
            if not error and not off and not _module_exists(module):
                error = f"no module '{module}'; reinstall {package}"
            yield PluginRow(entry.name, self.kind, version, package, entry.value, error, off)
        for name, plugin in sorted(self._registered.items()):
            version = str(getattr(plugin, "version", "?"))
            target = f"{plugin.__module__}:{plugin.__qualname__}"
            yield PluginRow(name, self.kind, version, FROM_FILE, target, "", name in disabled)

    def get(self, name: str) -> type[T]:
        """The plugin's class; where a stranger's bears the name of one of leukokit's own, leukokit's.

        Raises:
            PluginError: unknown name (the message lists the known ones, nearest first), a name used twice, a
                plugin that is disabled, an import that fails (with its cause), or a class that does not keep
                the contract.
        """
        if name in self._registered and name not in _disabled():
            return self._registered[name]
        entries = [entry for entry in self._enabled() if entry.name == name]
        if not entries:
            raise self._unknown(name)
        entries = [entry for entry in entries if _package(entry) == OWN] or entries
        if len(entries) > 1:
            packages = ", ".join(sorted({_package(entry) for entry in entries}))
            raise PluginError(f"{self.kind} '{name}' comes from several packages ({packages}); keep one")
        try:
            plugin = entries[0].load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Whatever a stranger's module raises at import is that plugin's error, not the toolkit's.
            cause = cause_of(error)
            raise PluginError(
                f"{self.kind} '{name}' ({entries[0].value}) does not import: {cause}"
            ) from error
        self.check(plugin, name)
        return plugin  # type: ignore[no-any-return]  # an entry point may hold anything; check has looked

    def check(self, plugin: Any, name: str) -> None:
        """Whether a class keeps the contract, as far as its declarations tell.

        Raises:
            PluginError: it does not; says which, and how.
        """
        from leukokit.plugin import PluginParams

        base, candidate = self.base_class, plugin
        subject = f"{self.kind} '{name}'"
        if not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise PluginError(f"{subject} is not a class derived from {base.__module__}.{base.__name__}")
        for attribute in ("name", "version", "summary"):
            if not isinstance(text := getattr(plugin, attribute, None), str):
                raise PluginError(f"{subject} declares no '{attribute}'")
            if not text.isprintable():
                raise PluginError(f"{subject}: '{attribute}' must be one printable line")
        if candidate.name != name:
            raise PluginError(f"{subject} calls itself '{candidate.name}'; the two names must be one")
        if problem := _api_problem(candidate.api_version):
            raise PluginError(f"{subject} {problem}")
        if not (isinstance(candidate.Params, type) and issubclass(candidate.Params, PluginParams)):
            raise PluginError(f"{subject}: Params must derive from leukokit.plugin.PluginParams")

    def _entries(self) -> list[importlib.metadata.EntryPoint]:
        return list(importlib.metadata.entry_points(group=self.group))

    def _enabled(self) -> list[importlib.metadata.EntryPoint]:
        disabled = _disabled()
        return [entry for entry in self._entries() if not _is_off(entry.name, _package(entry), disabled)]

    def _unknown(self, name: str) -> PluginError:
        off = [row.package for row in self.rows() if row.name == name and row.disabled]
        if off:
            return PluginError(
                f"{self.kind} '{name}' of {off[0]} is disabled by {DISABLE}; "
                "take it out of that variable to use it"
            )
        names = self.names()
        near = difflib.get_close_matches(name, names, n=max(1, len(names)), cutoff=0.4)
        ordered = ", ".join([*near, *(other for other in names if other not in near)]) or "none"
        return UnknownPluginError(
            f"no {self.kind} is called '{name}'; there are: {ordered}; name the file of another with --plugin"
        )


detectors: Registry[Detector] = Registry("detector", "leukokit.detectors", "leukokit.detectors.base:Detector")
graph_builders: Registry[GraphBuilder] = Registry(
    "graph builder", "leukokit.graph_builders", "leukokit.graph_builders.base:GraphBuilder"
)
classifiers: Registry[Classifier] = Registry(
    "classifier", "leukokit.classifiers", "leukokit.classifiers.base:Classifier"
)
writers: Registry[Writer] = Registry("writer", "leukokit.writers", "leukokit.writers.base:Writer")
engines: Registry[Engine] = Registry("engine", "leukokit.engines", "leukokit.engines.base:Engine")
ALL: tuple[Registry[Any], ...] = (detectors, graph_builders, classifiers, writers)


def registry_of(plugin: type[Any]) -> Registry[Any]:
    """Return the registry that a class belongs to.

    Raises:
        PluginError: it derives from the base class of no kind.
    """
    for registry in ALL:
        if isinstance(plugin, type) and issubclass(plugin, registry.base_class):
            return registry
    name = getattr(plugin, "__name__", repr(plugin))
    bases = [registry.base.rpartition(":")[2] for registry in ALL]
    raise PluginError(f"{name}: derives from none of {', '.join(bases[:-1])} and {bases[-1]}")


def register(plugin: type[T]) -> type[T]:
    """Class decorator that registers a plugin of a single file or a notebook, whatever its kind.

    Raises:
        PluginError: the name is taken, or the class does not keep its contract.
    """
    return registry_of(plugin).register(plugin)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Forget, at the end of the block, every plugin that was registered within it. For tests.

    Examples:
        >>> with isolated():
        ...     classes = load_plugin_file("examples/dark_spots.py")
        >>> "dark-spots" in detectors.names()
        False
    """
    before = [(registry, dict(registry._registered)) for registry in ALL]
    try:
        yield
    finally:
        for registry, registered in before:
            registry._registered = registered


def load_plugin_file(path: str | Path) -> list[type[Any]]:
    """Run a user's Python file, so that the plugins it decorates are registered.

    Running the same file again replaces its plugins.

    Returns:
        The classes that it registered, sorted by kind and name.

    Raises:
        PluginError: no such file, it raises (with its cause), or it registers nothing.
    """
    path = Path(path)
    if path.is_dir():
        raise PluginError(f"{path}: a folder; install a package with 'python -m pip install {path}'")
    if not path.is_file():
        raise UnknownPluginError(f"{path}: no such plugin file")
    # Two files may be called alike.
    place = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:8]
    name = f"{FILE_MODULE}{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: not a Python file; a plugin file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = {id(plugin) for registry in ALL for plugin in registry.registered()}
    try:
        spec.loader.exec_module(module)
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(f"{path}: {cause_of(error)}") from error
    new = [plugin for registry in ALL for plugin in registry.registered() if id(plugin) not in before]
    if not new:
        raise PluginError(
            f"{path}: registers no plugin; decorate the class with @leukokit.register; "
            "of a package, name the folder"
        )
    return new


def _is_same_class(first: type[Any], second: type[Any]) -> bool:
    """Return whether two classes are one, or one and its successor from the same file or notebook."""
    same_name = (first.__module__, first.__qualname__) == (second.__module__, second.__qualname__)
    runs_again = first.__module__ == "__main__" or first.__module__.startswith(FILE_MODULE)
    return first is second or (same_name and runs_again and "<locals>" not in first.__qualname__)


def _module_exists(module: str) -> bool:
    # Only the top-level package: looking further would import it.
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _disabled() -> frozenset[str]:
    return frozenset(word.strip() for word in os.environ.get(DISABLE, "").split(",")) - {""}


def _is_off(name: str, package: str, disabled: frozenset[str]) -> bool:
    if name in disabled or _plain_package_name(package) in map(_plain_package_name, disabled):
        return True
    return "all" in disabled and package != OWN


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else "?"


def _plain_package_name(package: str) -> str:
    # Installers take these spellings for one name (PEP 503).
    return re.sub(r"[-_.]+", "-", package).lower()


def _api_problem(wanted: Any) -> str:
    """What is wrong with the version of the contracts that a plugin asks for; empty where it fits."""
    from leukokit.plugin import API_VERSION

    if not isinstance(wanted, str) or not re.fullmatch(r"[0-9]+\.[0-9]+", wanted):
        return f"declares api_version {wanted!r}; it must be a text of two numbers, such as '{API_VERSION}'"
    major, minor = (int(part) for part in wanted.split("."))
    own_major, own_minor = (int(part) for part in API_VERSION.split("."))
    if major != own_major:
        return f"is written for plugin API {wanted}, this is {API_VERSION}; install a release of it that fits"
    if minor > own_minor:
        return f"needs plugin API {wanted}, this is {API_VERSION}; install a newer leukokit"
    return ""
