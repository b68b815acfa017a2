"""The writers of a batch: those that finish a file per image, since a batch may be stopped between images."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from leukokit.config import PipelineConfig
from leukokit.errors import ConfigError
from leukokit.registry import writers
from leukokit.writers.base import Writer

NO_WRITER = "none"


def writer_names(save: str | Iterable[str]) -> list[str]:
    """Return the names of writers, each once, from a list or from text such as ``png,json``.

    Raises:
        PluginError: no such writer.
        ConfigError: one that keeps a file over all images.
    """
    given = save.split(",") if isinstance(save, str) else save
    names = [name for name in dict.fromkeys(name.strip() for name in given) if name not in ("", NO_WRITER)]
    for name in names:
        if not writers.get(name).file_per_image:
            raise ConfigError(
                f"--save {name}: writes one file for all images, which a batch cannot resume; "
                "'leukokit detect' writes it"
            )
    return names


def open_writers(
    names: Sequence[str], config: PipelineConfig, out: Path, protected: Container[str] = ()
) -> list[Writer]:
    """Return the writers of these names with their parameters.

    Raises:
        ConfigError: a wrong parameter.
    """
    for name in config.writers:
        if name not in writers.names():
            # Names the writers that exist.
            writers.get(name)
    opened = []
    for name in names:
        plugin = writers.get(name)
        writer = plugin(out, plugin.parse(config.writers.get(name, {})))
        writer.protected = protected
        opened.append(writer)
    return opened


def writer_settings(names: Sequence[str], config: PipelineConfig) -> dict[str, Any]:
    """Return what decides the files of writers: names, parameters, and the source of those of others.

    Raises:
        ConfigError: a wrong parameter.
    """
    settings: dict[str, Any] = {"save": sorted(names)}
    for name in names:
        plugin = writers.get(name)
        params = plugin.parse(config.writers.get(name, {}))
        settings[f"writer {name}"] = {"version": plugin.version, "params": params.model_dump(mode="json")}
        if source := plugin.source_sha256():
            settings[f"writer {name}"]["source_sha256"] = source
    return settings
