"""What every plugin declares, whatever its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Generic, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import TypeVar

from leukokit._sources import source_sha256
from leukokit._text import one_line
from leukokit.errors import ConfigError
from leukokit.weights import sha256_of

API_VERSION = "1.0"
"""Version MAJOR.MINOR of the plugin contracts.

A plugin declares the version that it was written for. Another MAJOR is a different contract and is refused.
So is a higher MINOR, because the plugin may use what does not exist yet. A lower MINOR is accepted: within
one MAJOR, contracts only grow.
"""


class PluginParams(BaseModel):
    """Base of a plugin's parameters; a field's description is its documentation.

    Unknown keys, infinities and NaN, which JSON cannot hold, are errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


P_co = TypeVar("P_co", bound=PluginParams, default=PluginParams, covariant=True)


class Plugin(Generic[P_co]):
    """Base of all plugins: identity and parameters.

    A subclass sets ``name``, ``version`` and ``summary``. One that takes parameters names their model in
    brackets, e.g. ``class Dark(Detector[DarkParams])``; the class attribute ``Params`` is then that model.

    Attributes:
        params: the parameters, an instance of ``Params``.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str]
    api_version: ClassVar[str] = API_VERSION
    Params: ClassVar[type[PluginParams]] = PluginParams

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "Params" not in cls.__dict__ and (model := _params_model(cls)) is not None:
            cls.Params = model

    def __init__(self, params: P_co | None = None) -> None:
        self.params = cast(P_co, self.Params()) if params is None else params

    @classmethod
    def parse(cls, values: dict[str, Any]) -> P_co:
        """Make parameters from plain values, as they stand in a YAML file or behind ``--set``.

        Raises:
            ConfigError: one line that names the plugin, the field and what is wrong with it.
        """
        try:
            return cast(P_co, cls.Params.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "parameters"
            known = ", ".join(cls.Params.model_fields) or "none"
            message = f"{cls.name}: {field}: {first['msg'].lower()} (parameters: {known})"
            raise ConfigError(one_line(message)) from error

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """Files that hold what the plugin has learnt; none if it learns nothing."""
        return ()

    def provenance(self) -> dict[str, Any]:
        """Return what a result records of this plugin, as plain JSON values.

        The keys are the same for all kinds: ``name``, ``version``, ``params``, ``weights`` (SHA-256 by the
        file's stem) and ``source_sha256`` (of the plugin's code; None for leukokit's own). A subclass
        may add keys for whatever else decides its output.
        """
        return {
            "name": self.name,
            "version": self.version,
            "params": self.params.model_dump(mode="json"),
            "weights": _hashes(self.weight_files),
            "source_sha256": self.source_sha256(),
        }

    @classmethod
    def source_sha256(cls) -> str | None:
        """Return the SHA-256 of the plugin's code; None for leukokit's own, and if there is no file of it."""
        return source_sha256(cls.__module__)


def _params_model(plugin: type[Plugin]) -> type[PluginParams] | None:
    """Return the model in the brackets behind a plugin's base class; of a type variable, its bound."""
    for base in plugin.__dict__.get("__orig_bases__", ()):
        origin = get_origin(base)
        for argument in get_args(base) if isinstance(origin, type) and issubclass(origin, Plugin) else ():
            model = getattr(argument, "__bound__", argument)
            if isinstance(model, type) and issubclass(model, PluginParams):
                return model
    return None


def _hashes(files: tuple[Path, ...]) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for file in files:
        # Two networks may both be called 'best'.
        name = file.stem if file.stem not in hashes else f"{file.parent.name}/{file.name}"
        hashes[name] = sha256_of(file)
    return hashes
