"""The public sets of stained-smear images by name: whose they are, their licence, and their home."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from leukokit._yaml import load_model
from leukokit.errors import DataError

PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
"""A name that is also safe as a file's or folder's."""
SHA256 = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{64}$")]


class SourceFile(BaseModel):
    """One file, usually an archive, that a set is fetched from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str = Field(description="address, http or https", pattern=r"^https?://")
    name: PlainName = Field(
        default="", description="file name on disk; the last part of the address if left out"
    )
    sha256: SHA256 | None = Field(
        default=None,
        description="hash of the file; where it is not known, the first download's is recorded and held to",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_from_address(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("name") and isinstance(values.get("url"), str):
            last = PurePosixPath(unquote(urlsplit(values["url"]).path)).name
            return {**values, "name": re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip("._-")}
        return values


class PublicSet(BaseModel):
    """One public set; without ``files`` it has to be downloaded by hand, and ``access`` says how."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: PlainName
    labs: tuple[str, ...] = Field(default=(), description="laboratories the smears come from")
    what: str = Field(default="", description="what is in it, in a line")
    licence: str = Field(description="licence, as its home states it")
    citation: str = Field(default="", description="what to cite")
    home: str = Field(description="home page")
    files: tuple[SourceFile, ...] = Field(default=(), description="where it is fetched from")
    access: str = Field(default="", description="how to get a set that has no direct download")

    @model_validator(mode="after")
    def _can_be_had(self) -> PublicSet:
        if not self.files and not self.access:
            raise ValueError("a set needs 'files' to fetch or 'access' to say how to get it")
        if len({file.name for file in self.files}) < len(self.files):
            raise ValueError("two of the set's files have the same name")
        return self


class CatalogueFile(BaseModel):
    """What a user's own catalogue holds: ``sets``, a list of `PublicSet`."""

    model_config = ConfigDict(extra="forbid")
    sets: list[PublicSet]


@cache
def public_sets() -> tuple[PublicSet, ...]:
    """Return the sets of ``catalogue.yaml``, which ships with the package."""
    return tuple(load_model(CatalogueFile, Path(__file__).with_name("catalogue.yaml")).sets)


def load_catalogue(own: Path | None = None) -> dict[str, PublicSet]:
    """Return sets by name: those of a user's own YAML file, if given, and then the public ones.

    Raises:
        ConfigError: the file is missing, is not YAML or does not describe sets; names the first fault.
    """
    sets = {entry.name: entry for entry in (load_model(CatalogueFile, own).sets if own else ())}
    for entry in public_sets():
        sets.setdefault(entry.name, entry)
    return sets


def find_set(name: str, sets: Mapping[str, PublicSet]) -> PublicSet:
    """The set called ``name``.

    Raises:
        DataError: there is none; the message lists the known sets, nearest first.
    """
    if name in sets:
        return sets[name]
    raise DataError(f"no set is called '{name}'; there are {', '.join(_nearest_first(name, sets))}")


def _nearest_first(name: str, names: Iterable[str]) -> list[str]:
    return sorted(
        names, key=lambda other: -difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()
    )


def licence_of(name: str) -> str:
    """Licence of a public set by name; "unknown" for a set that is not in the catalogue."""
    return next((entry.licence for entry in public_sets() if entry.name == name), "unknown")
