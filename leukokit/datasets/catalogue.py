"""The public sets of stained-smear images by name: whose they are, their licence, and their home."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from leukokit.errors import ConfigError, DataError

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
            raise ValueError("a set needs 'files' to fetch or 'access' to say how it is had")
        if len({file.name for file in self.files}) < len(self.files):
            raise ValueError("two of the set's files have the same name")
        return self


class CatalogueFile(BaseModel):
    """What a user's own catalogue holds: ``sets``, a list of `PublicSet`."""

    model_config = ConfigDict(extra="forbid")
    sets: list[PublicSet]


def _branch(repository: str, name: str) -> SourceFile:
    """The archive of a repository's default branch, whichever its name: ``HEAD`` stands for it."""
    return SourceFile(url=f"https://github.com/{repository}/archive/HEAD.zip", name=name)


# GitHub makes these archives on demand and publishes no hash for them, so none is given.
PUBLIC_SETS: Final = (
    PublicSet(
        name="bccd",
        labs=("bccd",),
        what="364 fields of 640x480, VOC boxes of leukocytes, platelets and some erythrocytes",
        licence="MIT",
        citation="Shenggan, BCCD Dataset, 2017, https://github.com/Shenggan/BCCD_Dataset",
        home="https://github.com/Shenggan/BCCD_Dataset",
        files=(
            SourceFile(
                url="https://github.com/Shenggan/BCCD_Dataset/archive/refs/tags/v1.0.zip",
                name="bccd-v1.0.zip",
            ),
        ),
    ),
    PublicSet(
        name="txl-pbc",
        labs=("pbc", "raabin", "bccd", "bcd"),
        what="fields of four sets annotated anew, YOLO boxes of leukocytes, erythrocytes and platelets",
        licence="MIT",
        citation="Gan and Li, TXL-PBC: a freely accessible labeled peripheral blood cell dataset, 2024, "
        "arXiv:2407.13214",
        home="https://github.com/lugan113/TXL-PBC_Dataset",
        files=(_branch("lugan113/TXL-PBC_Dataset", "txl-pbc.zip"),),
    ),
    PublicSet(
        name="pbc",
        labs=("pbc",),
        what="single cells of 360x363 (CellaVision DM96), one YOLO box each, seven classes",
        licence="CC BY 4.0",
        citation="Acevedo et al., Data in Brief 30, 105474, 2020, doi:10.17632/snkd93bnjn",
        home="https://github.com/medmabcf/White-Blood-Cell-Detection-Dataset",
        files=(_branch("medmabcf/White-Blood-Cell-Detection-Dataset", "pbc.zip"),),
    ),
    PublicSet(
        name="chula",
        labs=("chula",),
        what="low-power fields of 1440x900 with YOLO boxes of five leukocyte classes",
        licence="MIT",
        citation="Chulalongkorn University, WBC_Dataset, https://github.com/singgihbekti/WBC_Dataset",
        home="https://github.com/singgihbekti/WBC_Dataset",
        files=(_branch("singgihbekti/WBC_Dataset", "chula.zip"),),
    ),
    PublicSet(
        name="tecom-wbc",
        labs=("tecom",),
        what="300 single cells of 120x120 with masks of nucleus and cytoplasm, five classes, a rapid stain",
        licence="GPL-3.0",
        citation="Zheng et al., Fast and robust segmentation of white blood cell images by "
        "self-supervised learning, Micron 107, 2018, doi:10.1016/j.micron.2018.01.010",
        home="https://github.com/zxaoyou/segmentation_WBC",
        files=(_branch("zxaoyou/segmentation_WBC", "tecom-wbc.zip"),),
    ),
    PublicSet(
        name="raabin",
        labs=("raabin",),
        what="single cells of 575x575 from two microscopes, five classes, no boxes",
        licence="free access, terms at its home",
        citation="Kouzehkanan et al., Scientific Reports 12, 1123, 2022, doi:10.1038/s41598-021-04426-x",
        home="https://raabindata.com/raabin-health-database/",
        access="its owners ask for a form to be filled in",
    ),
    PublicSet(
        name="kaggle-wbc",
        labs=("bccd",),
        what="augmented copies of BCCD photographs at 320x240, four leukocyte classes by folder",
        licence="MIT",
        citation="Mooney, Blood Cell Images, Kaggle, 2018",
        home="https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
        access="Kaggle asks for an account",
    ),
)
"""The sets that ship with the toolkit's catalogue, the ones with boxes first."""


def load_catalogue(own: Path | None = None) -> dict[str, PublicSet]:
    """Sets by name: the public ones and, if given, those of a user's own YAML file, which go first.

    Raises:
        ConfigError: the file is missing, is not YAML or does not describe sets; names the first fault.
    """
    import yaml

    sets = {entry.name: entry for entry in PUBLIC_SETS}
    if own is None:
        return sets
    try:
        content = yaml.safe_load(own.read_text(encoding="utf-8"))
        added = CatalogueFile.model_validate(content).sets
    except OSError as error:
        raise ConfigError(f"{own}: cannot read the catalogue ({error.strerror})") from error
    except ValidationError as error:
        raise ConfigError(f"{own}: not a catalogue of sets: {first_fault(error)}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{own}: not a YAML file ({' '.join(str(error).split())})") from error
    return {entry.name: entry for entry in added} | {
        name: entry for name, entry in sets.items() if name not in {entry.name for entry in added}
    }


def find_set(name: str, sets: Mapping[str, PublicSet]) -> PublicSet:
    """The set called ``name``.

    Raises:
        DataError: there is none; lists what there is, nearest first.
    """
    if name in sets:
        return sets[name]
    raise DataError(f"no set is called '{name}'; there are {', '.join(_nearest_first(name, sets))}")


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found, as one line: where, and what is wrong."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg']}" if where else str(fault["msg"])


def _nearest_first(name: str, names: Iterable[str]) -> list[str]:
    return sorted(
        names, key=lambda other: -difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()
    )


def licence_of(name: str) -> str:
    """Licence of a public set by name; "unknown" for a set that is not in the catalogue."""
    return next((entry.licence for entry in PUBLIC_SETS if entry.name == name), "unknown")
