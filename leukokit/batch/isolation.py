"""Which plugins run in a process that can be ended: those that are not leukokit's own."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from leukokit.config import PipelineConfig
from leukokit.registry import ALL, FILE_MODULE, classifiers, detectors, graph_builders, writers


def has_foreign_plugins(config: PipelineConfig, writer_names: Sequence[str]) -> bool:
    """Return whether a plugin takes part that is not leukokit's own and that another process can load.

    Raises:
        PluginError: no such plugin.
    """
    return any(not _is_own(plugin) and _is_importable(plugin) for plugin in _plugins(config, writer_names))


def plugin_files() -> tuple[Path, ...]:
    """Return the plugin files that were loaded here, for a process that is to know the same plugins."""
    registered = (plugin for registry in ALL for plugin in registry.registered())
    return tuple(dict.fromkeys(_files(registered)))


def _plugins(config: PipelineConfig, writer_names: Sequence[str]) -> Iterator[type[Any]]:
    yield detectors.get(config.detector.name)
    yield graph_builders.get(config.graph.name)
    if config.classifier is not None:
        yield classifiers.get(config.classifier.name)
    for name in writer_names:
        yield writers.get(name)


def _is_own(plugin: type[Any]) -> bool:
    return plugin.__module__.partition(".")[0] == "leukokit"


def _is_importable(plugin: type[Any]) -> bool:
    """Whether another process finds it: not where it was typed in, e.g. in a notebook."""
    return plugin.__module__ != "__main__"


def _files(plugins: Iterable[type[Any]]) -> Iterator[Path]:
    for plugin in plugins:
        source = getattr(sys.modules.get(plugin.__module__), "__file__", None)
        if source and plugin.__module__.startswith(FILE_MODULE):
            yield Path(source)
