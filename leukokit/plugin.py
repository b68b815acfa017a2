"""What every plugin, of whatever kind, declares."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leukokit.errors import ConfigError

API_VERSION = "1.0"
"""Version MAJOR.MINOR of the plugin contracts.

A plugin declares the version that it was written for. Another MAJOR is another contract and is refused; so is
a higher MINOR, since the plugin may use what is not there yet. A lower MINOR is welcome: within one MAJOR,
contracts only grow.
"""


class PluginParams(BaseModel):
    """Base of a plugin's parameters; a field's description is its documentation.

    Unknown keys, infinities and NaN, which JSON cannot hold, are errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Plugin:
    """Base of all plugins: identity and parameters.

    A subclass sets ``name``, ``version`` and ``summary``, and nests a ``Params`` model if it has any.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str]
    api_version: ClassVar[str] = API_VERSION
    Params: ClassVar[type[PluginParams]] = PluginParams

    def __init__(self, params: PluginParams | None = None) -> None:
        self.params: Any = self.Params() if params is None else params

    @classmethod
    def parse(cls, values: dict[str, Any]) -> PluginParams:
        """Parameters from plain values, as they stand in a YAML file or behind ``--set``.

        Raises:
            ConfigError: one line that names the plugin, the field and what is wrong with it.
        """
        try:
            return cls.Params.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "parameters"
            known = ", ".join(cls.Params.model_fields) or "none"
            message = f"{cls.name}: {field}: {first['msg'].lower()} (parameters: {known})"
            raise ConfigError(" ".join(message.split())) from error

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """Files that hold what the plugin has learnt; none where it learns nothing."""
        return ()

    def provenance(self) -> dict[str, Any]:
        """What a result records of this plugin; subclasses add what else decides their answer.

        Of a plugin that is not leukokit's own, the SHA-256 of its module's file, too: whoever is writing it
        changes it more often than its version.
        """
        stored = {"name": self.name, "version": self.version, "params": self.params.model_dump(mode="json")}
        source = self.source_sha256()
        return stored | {"source_sha256": source} if source else stored

    @classmethod
    def source_sha256(cls) -> str | None:
        """SHA-256 of its module's file; None of leukokit's own, and where there is no such file."""
        source = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if source is None or cls.__module__.startswith("leukokit."):
            return None
        try:
            return hashlib.sha256(Path(source).read_bytes()).hexdigest()
        except OSError:
            # Typed in, or out of an archive.
            return None
